//! Writing the index: one record of the folder's manifest at a time, and what follows when it is durable.

use super::{Log, Purpose};
use crate::disk::Op;
use crate::error::StorageError;
use crate::format::log::{Index, IndexPartition, SECTION, Visibility};
use crate::format::manifest::{Checkpoint, Manifest, SLOT_MAX};
use crate::id::Epoch;
use std::collections::BTreeMap;

impl Log {
    fn index_now(&self) -> Index {
        let partitions = self.partitions.iter().map(|p| IndexPartition {
            visible: p.committing,
            segments: p.index(),
        });
        Index {
            visibility: self.config.visibility,
            committed: self.committing,
            partitions: partitions.collect(),
        }
    }

    fn manifest(&self, index: &Index) -> Manifest {
        let sections = BTreeMap::from([(SECTION.to_string(), index.encode())]);
        Manifest {
            lineage: self.lineage,
            attempt: self.attempt,
            unused_from: Epoch(index.committed.0.saturating_add(1)),
            checkpoints: vec![Checkpoint {
                epoch: index.committed,
                segments: Vec::new(),
                sections,
            }],
        }
    }

    /// Begins a record if one is wanted and none is under way.
    pub(super) fn start_index(&mut self) -> Result<(), StorageError> {
        if !self.index_wanted || self.index_under_way.is_some() {
            return Ok(());
        }
        let index = self.index_now();
        let manifest = self.manifest(&index);
        let (len, max) = (manifest.encoded_len(), SLOT_MAX as u64);
        if len > max {
            return Err(StorageError::ManifestTooLarge { len, max });
        }
        self.index.begin(&manifest);
        self.index_wanted = false;
        self.index_under_way = Some((index, std::mem::take(&mut self.dropped)));
        Ok(())
    }

    /// The record under way is durable.
    pub(super) fn index_written(&mut self) {
        let Some((index, dropped)) = self.index_under_way.take() else {
            return;
        };
        for (p, said) in self.partitions.iter_mut().zip(&index.partitions) {
            if let Some(spare) = &mut p.spare {
                spare.named |= said.segments.iter().any(|s| s.id == spare.id);
            }
            if self.config.visibility == Visibility::Committed {
                p.visible = said.visible;
            }
        }
        self.committed = index.committed;
        for segment in dropped {
            let name = segment.log_file_name();
            self.send(Op::Remove { name }, Purpose::Remove { segment });
        }
    }
}
