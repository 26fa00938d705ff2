//! The house: which crate may know which. An edge that is not listed here is a mistake, or a decision to be made in
//! ARCHITECTURE.md first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each crate with the crates of this workspace that its code may use; what only its tests use is not counted.
const ALLOWED: [(&str, &[&str]); 9] = [
    ("pelton-ring", &[]),
    ("pelton-storage", &[]),
    ("pelton-derive", &[]),
    (
        "pelton",
        &["pelton-ring", "pelton-storage", "pelton-derive"],
    ),
    ("pelton-connectors", &["pelton"]),
    ("pelton-service", &["pelton", "pelton-connectors"]),
    (
        "pelton-bench",
        &[
            "pelton",
            "pelton-ring",
            "pelton-connectors",
            "pelton-storage",
        ],
    ),
    ("pelton-loom-tests", &["pelton-ring"]),
    ("pelton-simulation", &["pelton", "pelton-storage"]),
];

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().expect("a string").to_string()
}

#[test]
fn edges_run_one_way() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let members: BTreeSet<String> = packages.iter().map(|p| text(&p["name"])).collect();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into_iter().collect();
    for package in packages {
        let name = text(&package["name"]);
        let may = allowed
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{name} is not in the list of the house"));
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let uses = text(&dependency["name"]);
            if dependency["kind"].as_str() != Some("dev") && members.contains(&uses) {
                assert!(
                    may.contains(&uses.as_str()),
                    "{name} may not depend on {uses}"
                );
            }
        }
    }
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the workspace").to_path_buf()
}

fn safety() -> String {
    std::fs::read_to_string(root().join("SAFETY.md")).expect("SAFETY.md is there")
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn safety_names_tests_that_exist() {
    let (root, safety) = (root(), safety());
    let mut tests = 0;
    for name in quoted(&safety) {
        if let Some((file, test)) = name.split_once(": ") {
            let code = std::fs::read_to_string(root.join(file));
            let code = code.unwrap_or_else(|e| panic!("SAFETY.md: {file}: {e}"));
            let there = code.contains(&format!("fn {test}("));
            assert!(there, "SAFETY.md: {file} has no test {test}");
            tests += 1;
        } else if name.starts_with("scripts/") || name.ends_with(".rs") || name.ends_with('/') {
            assert!(root.join(name).exists(), "SAFETY.md: there is no {name}");
        }
    }
    assert!(tests > 40, "only {tests} tests are named");
}

/// Rust files below `folder`, without what is built.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("it is readable") {
        let path = entry.expect("it is listed").path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        if path.is_dir() && !name.starts_with('.') && !name.starts_with("target") {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

#[test]
fn safety_lists_every_file_with_unsafe_code() {
    let (root, safety) = (root(), safety());
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 100, "the sources are here");
    // Put together, so that this file is none of them.
    let marks = ["{", "fn", "impl", "extern"].map(|what| ["unsafe", what].join(" "));
    let mut unlisted = Vec::new();
    for path in files {
        let code = std::fs::read_to_string(&path).expect("it is readable");
        let mut lines = code.lines().filter(|l| !l.trim_start().starts_with("//"));
        let name = path.strip_prefix(&root).expect("below the root").display();
        let listed = safety.contains(&format!("| `{name}` |"));
        if lines.any(|l| marks.iter().any(|m| l.contains(m))) && !listed {
            unlisted.push(name.to_string());
        }
    }
    assert!(unlisted.is_empty(), "SAFETY.md does not list {unlisted:?}");
}
