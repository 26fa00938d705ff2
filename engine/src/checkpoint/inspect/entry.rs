//! One value of a process function's state, as the last checkpoint of a folder has it.

use super::super::restore::Sections;
use crate::checkpoint::Parts;
use crate::key::Key;
use crate::state::{Codec, State, shape_of};
use pelton_storage::{BlockingDisk, Filter, PlainBytes, SnapshotReader, Store};

/// What the key of an entry begins with.
const ENTRY: u8 = b'E';

/// Whose value is wanted: the operator's uid, given or derived, and the state's name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sought<'a> {
    pub uid: &'a str,
    pub state: &'a str,
}

/// The value of a key in a state of one value a key. Reads all of the checkpoint; `None` where the key has none, and where there
/// is no checkpoint yet.
///
/// # Errors
/// In words: there is no such state, it is of other types, or what must be read is damaged.
pub(crate) fn value_of<K: Key, V: State>(
    mut disk: impl BlockingDisk,
    sought: Sought<'_>,
    key: &K,
) -> Result<Option<V>, String> {
    let Some(peeked) = Store::peek(&mut disk).map_err(|e| e.to_string())? else {
        return Ok(None);
    };
    let manifest = peeked.manifest;
    let Some(last) = manifest.last() else {
        return Ok(None);
    };
    let states = Sections::states(last).map_err(|e| e.what)?;
    let is_sought = |s: &&_| is_called(s, sought);
    let Some(state) = states.iter().find(is_sought) else {
        let mut there: Vec<String> = states.iter().map(|s| s.path()).collect();
        there.sort();
        return Err(format!("there is none; there are {}", there.join(", ")));
    };
    let shape = shape_of::<(K, V)>();
    if state.shape != shape || is_of_engine(&state.name) {
        return Err(format!(
            "it is no state of one value a key of a process function's with these types: asked for is {shape}, and it holds {}",
            state.shape
        ));
    }
    let mut codec = Codec::default();
    let mut wanted = vec![ENTRY];
    codec.append(key, &mut wanted);
    let bytes = PlainBytes::new(disk);
    let mut reader = SnapshotReader::new(bytes, manifest.lineage, last, Filter::default());
    let mut found: Option<Vec<u8>> = None;
    while let Some(block) = reader.next_block().map_err(|e| e.to_string())? {
        if block.head.state != state.id {
            continue;
        }
        for frame in block.frames() {
            let frame = frame.map_err(|_| "a frame is damaged".to_string())?;
            // Frames of one key come in the order of epochs: the last one counts.
            if frame.key == wanted {
                found = frame.value.map(<[u8]>::to_vec);
            }
        }
    }
    let Some(found) = found else {
        return Ok(None);
    };
    let mut parts = Parts::of(&found);
    let value = parts.number().and_then(|_until| parts.part());
    value.map(Some).map_err(|e| e.what)
}

fn is_called(state: &super::super::registry::Declared, sought: Sought<'_>) -> bool {
    state.uid == sought.uid && state.name == sought.state
}

/// States that operators of the engine's own keep, whose entries look otherwise.
fn is_of_engine(name: &str) -> bool {
    matches!(
        name,
        "keyed" | "table" | "timers" | "positions" | "watermarks" | "prepared"
    )
}
