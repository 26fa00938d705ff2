//! What is in the folders of two-phase files, and whether it is the same.

use std::collections::BTreeMap;
use std::path::Path;

/// All lines that count, in the order of epochs.
pub fn lines(folder: &Path) -> Result<Vec<String>, String> {
    let mut names = vec![];
    match std::fs::read_dir(folder) {
        Ok(entries) => {
            for entry in entries {
                let name = entry.map_err(|e| e.to_string())?.file_name();
                names.extend(name.into_string().ok().filter(|n| n.starts_with("part-")));
            }
        }
        Err(e) => return Err(format!("{}: {e}", folder.display())),
    }
    names.sort_unstable();
    let mut lines = vec![];
    for name in names {
        let text = std::fs::read_to_string(folder.join(&name)).map_err(|e| e.to_string())?;
        if !text.ends_with('\n') {
            return Err(format!("{name} ends within a line"));
        }
        lines.extend(text.lines().map(String::from));
    }
    Ok(lines)
}

/// Class ROWS: the same lines, in any order.
pub fn same_rows(what: &str, got: &[String], expected: &[String]) -> Result<(), String> {
    let sorted = |lines: &[String]| {
        let mut lines = lines.to_vec();
        lines.sort_unstable();
        lines
    };
    let (got, expected) = (sorted(got), sorted(expected));
    if got == expected {
        return Ok(());
    }
    let first = got.iter().zip(&expected).position(|(a, b)| a != b);
    let at = first.unwrap_or(got.len().min(expected.len()));
    Err(format!(
        "{what}: {} lines instead of {}; the {at}. is {:?} instead of {:?}",
        got.len(),
        expected.len(),
        got.get(at),
        expected.get(at)
    ))
}

/// Class NET: the last value of each key.
pub fn last_of_keys(
    lines: &[String],
    split: impl Fn(&str) -> (String, String),
) -> BTreeMap<String, String> {
    lines.iter().map(|line| split(line)).collect()
}

/// Class NET.
pub fn same_last(
    what: &str,
    got: &BTreeMap<String, String>,
    expected: &BTreeMap<String, String>,
) -> Result<(), String> {
    for key in got.keys().chain(expected.keys()) {
        if got.get(key) != expected.get(key) {
            return Err(format!(
                "{what}: of {key} the last is {:?} instead of {:?}",
                got.get(key),
                expected.get(key)
            ));
        }
    }
    Ok(())
}
