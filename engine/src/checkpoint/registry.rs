//! The states of a job: which operator's each is, what it is called, and what its entries look like.
//!
//! A state is known by its operator's uid and its own name. A uid that was not given is made of the operator's kind and its
//! number: the same for the same binary, so a crash is survived; another job cannot be started from it.

use crate::error::BuildError;
use crate::plan::OpInfo;
use pelton_storage::StateId;
use std::collections::BTreeMap;

/// A state as it was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    pub id: StateId,
    /// The operator's uid, given or derived.
    pub uid: String,
    /// Whether it was given.
    pub given: bool,
    /// The operator, for people.
    pub operator: String,
    /// The state's name within its operator.
    pub name: String,
    /// What its entries look like: see [`crate::state::shape_of`].
    pub shape: String,
}

impl Declared {
    /// Whether it is what a sink prepares: it holds nothing between epochs, and nothing of it goes to another job.
    pub fn is_of_sink(&self) -> bool {
        self.name == "prepared"
    }

    /// What it is called where it is allowed to be dropped.
    pub fn path(&self) -> String {
        format!("{}/{}", self.uid, self.name)
    }
}

/// All states of a job. The same on every shard, since every shard builds the same operators.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    states: BTreeMap<u64, Declared>,
    /// Of those that can be loaded from other shapes than their own: from which.
    migrations: BTreeMap<u64, fn(&str) -> bool>,
    /// The first declaration that was refused.
    fault: Option<BuildError>,
}

impl Registry {
    /// Declares a state of an operator. A refusal is kept: see [`Registry::check`].
    pub fn declare(&mut self, op: &OpInfo, name: &str, shape: &str) -> StateId {
        let (uid, given) = uid_of(op);
        let id = crate::key::stable_hash(&format!("{uid}/{name}"));
        let declared = Declared {
            id: StateId(id),
            uid,
            given,
            operator: op.to_string(),
            name: name.into(),
            shape: shape.into(),
        };
        match self.states.get(&id) {
            Some(other) if *other != declared => {
                let what = format!(
                    "its state '{}' of '{}' has the number of '{}' of '{}'",
                    declared.name, declared.uid, other.name, other.uid
                );
                let fault = BuildError::argument(op, what, "give the operator another uid");
                self.fault.get_or_insert(fault);
            }
            _ => {
                self.states.insert(id, declared);
            }
        }
        StateId(id)
    }

    /// Whether all declarations were good.
    pub fn check(&mut self) -> Result<(), BuildError> {
        self.fault.take().map_or(Ok(()), Err)
    }

    /// The states, by number.
    pub fn states(&self) -> impl Iterator<Item = &Declared> {
        self.states.values()
    }

    /// See [`crate::plan::ShardBuild::migrates`].
    pub fn migrates(&mut self, id: StateId, can: fn(&str) -> bool) {
        self.migrations.insert(id.0, can);
    }

    /// Whether a state can be loaded from a shape that is not its own.
    pub fn can_migrate(&self, id: StateId, stored: &str) -> bool {
        self.migrations.get(&id.0).is_some_and(|can| can(stored))
    }

    pub fn get(&self, id: StateId) -> Option<&Declared> {
        self.states.get(&id.0)
    }
}

/// The uid of an operator, and whether it was given.
pub(crate) fn uid_of(op: &OpInfo) -> (String, bool) {
    match &op.uid {
        Some(uid) => (uid.clone(), true),
        None => (format!("{}-{}", op.kind, op.id.0), false),
    }
}
