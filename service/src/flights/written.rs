//! The results of a run with checkpoints, as its files hold them: those of all its lives.

use serde::Deserialize;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind};
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

/// What the results' files hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Flights: the last line of an hour, origin and carrier counts.
    pub flights: u64,
    /// Results, replaced ones too: fewer than were written where somebody has taken files away, as readers of parts may.
    pub results: u64,
}

/// What is in the folder `out`. Reads all of it; memory grows with the number of keys.
pub fn read(out: &Path) -> io::Result<Written> {
    let mut last = HashMap::new();
    let mut results = 0;
    for part in parts(out)? {
        let file = match File::open(part) {
            // Taken away since the folder was looked at.
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            file => file?,
        };
        for line in BufReader::new(file).lines() {
            let Line {
                hour,
                origin,
                carrier,
                departures,
                cancelled,
            } = serde_json::from_str(&line?)?;
            last.insert((hour, origin, carrier), departures + cancelled);
            results += 1;
        }
    }
    let flights = last.into_values().sum();
    Ok(Written { flights, results })
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
