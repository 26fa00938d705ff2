//! The house: which crate may know which. An edge that is not listed here is a mistake, or a decision to be made in
//! ARCHITECTURE.md first.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Each crate with the crates of this workspace that its code may use; what only its tests use is not counted.
const ALLOWED: [(&str, &[&str]); 8] = [
    ("pelton-ring", &[]),
    ("pelton-storage", &[]),
    ("pelton", &["pelton-ring"]),
    ("pelton-connectors", &["pelton"]),
    ("pelton-service", &["pelton", "pelton-connectors"]),
    (
        "pelton-bench",
        &["pelton", "pelton-ring", "pelton-connectors", "pelton-storage"],
    ),
    ("pelton-loom-tests", &["pelton-ring"]),
    ("pelton-simulation", &["pelton"]),
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
