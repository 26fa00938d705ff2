//! The commands as scripts call them: the shape of the JSON, and what is refused.

use serde_json::Value;
use std::process::{Command, Output};

fn bench(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pelton-bench"));
    command.args(args).output().unwrap()
}

fn json_lines(output: &Output) -> Vec<Value> {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn throughput_prints_one_object_a_run() {
    let args = [
        "throughput",
        "keyed-window",
        "--engine",
        "limit",
        "--shards",
        "1",
        "--events",
        "300000",
        "--json",
    ];
    let lines = json_lines(&bench(&args));
    let [run] = lines.as_slice() else {
        panic!("{} lines", lines.len())
    };
    assert_eq!(run["workload"], "keyed-window");
    assert_eq!(run["engine"], "limit");
    assert_eq!(run["shards"], 1);
    assert_eq!(run["events"], 300_000);
    for field in ["seconds", "events_per_second", "peak_rss_bytes"] {
        assert!(run[field].as_f64().unwrap() > 0.0, "{field}");
    }
    assert!(run["allocations_per_event"].as_f64().unwrap() < 0.005);
    assert!(run["results"].as_u64().unwrap() > 90_000);
    assert_eq!(run["checksum"].as_str().unwrap().len(), 16);
    assert_eq!(run.as_object().unwrap().len(), 10);
}

#[test]
fn a_run_on_two_shards_tells_how_far_apart_the_cores_are() {
    let args = "throughput keyed-window --engine limit --shards 2 --events 300000 --json";
    let lines = json_lines(&bench(&args.split(' ').collect::<Vec<_>>()));
    let apart = lines[0]["core_round_trip_ns"].as_array();
    let several = std::thread::available_parallelism().unwrap().get() > 1;
    assert_eq!(apart.is_some(), several);
    for ns in apart.into_iter().flatten() {
        assert!(ns.as_f64().unwrap() >= 1.0);
    }
}

#[test]
fn latency_prints_one_object_and_writes_the_distribution() {
    let out = std::env::temp_dir().join(format!("pelton-bench-{}", std::process::id()));
    let args = [
        "latency",
        "passthrough",
        "--engine",
        "limit",
        "--rate",
        "10000",
        "--seconds",
        "3",
        "--json",
        "--out",
    ];
    let args = [&args[..], &[out.to_str().unwrap()]].concat();
    let lines = json_lines(&bench(&args));
    let [run] = lines.as_slice() else {
        panic!("{} lines", lines.len())
    };
    assert_eq!(run["workload"], "passthrough");
    assert_eq!(run["engine"], "limit");
    assert_eq!(run["samples"], 20_000);
    let order = [
        "p50_us", "p90_us", "p99_us", "p999_us", "p9999_us", "max_us",
    ];
    let values: Vec<f64> = order
        .iter()
        .map(|field| run[*field].as_f64().unwrap())
        .collect();
    assert!(values[0] > 0.0 && values.is_sorted(), "{values:?}");
    assert_eq!(run["quiet"], "not measurable here");
    let text = std::fs::read_to_string(run["hgrm"].as_str().unwrap()).unwrap();
    assert!(
        text.contains("Percentile") && text.contains("#[Max"),
        "{text}"
    );
    std::fs::remove_dir_all(out).unwrap();
}

#[test]
fn nonsense_is_refused_with_exit_code_2() {
    let refused: [&[&str]; 9] = [
        &["throughput", "nonsense"],
        &["throughput", "ysb", "--shards", "0"],
        &["throughput", "ysb", "--events", "0"],
        &[
            "throughput",
            "ysb",
            "--engine",
            "limit",
            "--shards",
            "100000",
        ],
        &[
            "throughput",
            "ysb",
            "--engine",
            "limit",
            "--limit-variant",
            "prefetch",
        ],
        &[
            "throughput",
            "top-10",
            "--limit-variant",
            "prefetch",
            "--limit",
        ],
        &["flat-memory", "--samples", "2"],
        &["latency", "keyed-window", "--seconds", "3"],
        &["latency", "passthrough", "--rate", "0"],
    ];
    for args in refused {
        let output = bench(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stderr.starts_with(b"error: "), "{args:?}");
    }
}

#[test]
fn kappa_prints_one_object_and_leaves_nothing() {
    let folder = std::env::temp_dir().join(format!("pelton-bench-kappa-{}", std::process::id()));
    let folder_name = folder.to_str().unwrap();
    let small = "kappa --records 20000 --rate 20000 --seconds 1 --pairs 1 --json --folder";
    let args: Vec<&str> = small.split(' ').chain([folder_name]).collect();
    let lines = json_lines(&bench(&args));
    let [run] = lines.as_slice() else {
        panic!("{} lines", lines.len())
    };
    assert_eq!(run["workload"], "kappa");
    assert_eq!(run["live_records"], 20_000);
    for field in [
        "write_records_per_second",
        "history_records_per_second",
        "reader_records_per_second",
        "live_p50_ms",
        "live_p99_ms",
    ] {
        assert!(run[field].as_f64().unwrap() > 0.0, "{field}");
    }
    let live = |quantile: &str| run[quantile].as_f64().unwrap();
    assert!(live("live_p50_ms") > 0.1 && live("live_p50_ms") <= live("live_p99_ms"));
    assert!(!folder.exists());
    std::fs::create_dir(&folder).unwrap();
    assert_eq!(bench(&args).status.code(), Some(2), "a folder that exists");
    std::fs::remove_dir(&folder).unwrap();
}

#[test]
fn flat_memory_prints_one_object_an_operator() {
    let args = "flat-memory interval-join deduplicate --events 2000000 --samples 6 --json";
    let lines = json_lines(&bench(&args.split(' ').collect::<Vec<_>>()));
    let [join, deduplicate] = lines.as_slice() else {
        panic!("{} lines", lines.len())
    };
    assert_eq!(join["operator"], "interval-join");
    assert_eq!(deduplicate["operator"], "deduplicate");
    for run in [join, deduplicate] {
        let samples = run["samples"].as_array().unwrap();
        assert!((3..=6).contains(&samples.len()), "{}", samples.len());
        for sample in samples {
            assert!(sample["resident_bytes"].as_u64().unwrap() > 1_000_000);
            assert!(sample["state_entries"].as_u64().unwrap() > 1000, "{run}");
        }
        assert!(run["results"].as_u64().unwrap() > 100_000);
        let growth = run["state_growth"].as_f64().unwrap();
        assert!((0.5..1.5).contains(&growth), "{growth}");
    }
    let mut left = join["states"].as_array().unwrap().iter();
    let left = left.find(|state| state["state"] == "left").unwrap();
    assert!(left["bytes_per_entry"].as_f64().unwrap() >= 24.0);
}
