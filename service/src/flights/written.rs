//! The results of a run with checkpoints, as its files hold them: those of all its lives.

use serde::Deserialize;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

/// What is counted of a result.
#[derive(Deserialize)]
struct Line {
    hour: String,
    origin: String,
    carrier: String,
    departures: u64,
    cancelled: u64,
}

/// Flights in the results of the folder `out`: the last line of an hour, origin and carrier counts. Reads all of them; memory grows
/// with the number of keys.
pub fn flights(out: &Path) -> io::Result<u64> {
    let mut last = HashMap::new();
    for part in parts(out)? {
        for line in BufReader::new(File::open(part)?).lines() {
            let Line {
                hour,
                origin,
                carrier,
                departures,
                cancelled,
            } = serde_json::from_str(&line?)?;
            last.insert((hour, origin, carrier), departures + cancelled);
        }
    }
    Ok(last.into_values().sum())
}

/// The files in the order of their epochs, which is that of their names. There are none where the input held nothing.
fn parts(out: &Path) -> io::Result<Vec<PathBuf>> {
    let mut parts = vec![];
    for entry in out.read_dir()? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str());
        if name.is_some_and(|n| n.starts_with("part-")) {
            parts.push(path);
        }
    }
    parts.sort_unstable();
    Ok(parts)
}
