//! Files one after another as one partition.

use super::*;
use pelton::{Spans, Tumbling};
use proptest::prelude::*;

fn cases() -> ProptestConfig {
    let cases = std::env::var("PELTON_CASES")
        .ok()
        .and_then(|n| n.parse().ok());
    ProptestConfig::with_cases(cases.unwrap_or(64))
}

#[test]
fn files_in_sequence_are_read_in_the_order_of_their_names() {
    let paths = [
        file("b.jsonl", "\u{feff}{\"id\":1}\nx\n{\"id\":2}"),
        file("empty.jsonl", ""),
        file("a.jsonl.gz", gzip(b"{\"id\":3}\n\ny\n")),
        file("nothing.gz", gzip(b"")),
        file("blank.jsonl", "\n\n"),
        file("c.jsonl", "{\"id\":4}\nz"),
    ];
    let at = |n: usize| paths[n].display();
    for block in [1, 2, 7, 1 << 18] {
        let source = files::json::<Row>(&paths).in_sequence().block_bytes(block);
        let ran = run_on(source, 3);
        assert_eq!(ran.end, Ok(()));
        assert_eq!(
            ran.rows,
            [1, 2, 3, 4].map(|id| row(id, "")),
            "blocks of {block}"
        );
        assert_eq!(
            ran.dead,
            [
                format!("json: {}:2 (offset 12): expected value, column 1", at(0)),
                format!("json: {}:3 (offset 10): expected value, column 1", at(2)),
                format!("json: {}:2 (offset 9): expected value, column 1", at(5)),
            ]
        );
        assert_eq!(ran.payloads, [b"x", b"y", b"z"]);
        assert_eq!((ran.records_in, ran.malformed), (7, 3));
    }
}

#[test]
fn each_csv_file_has_its_own_header() {
    let paths = [
        file("a.csv", "id,name\n1,\"a\nb\"\n"),
        file("b.csv.gz", gzip(b"name,id\nc,2\n")),
        file("c.csv", "id\n"),
        file("d.csv", "id\n3\n4,x"),
    ];
    let ran = run(files::csv::<Row>(&paths).in_sequence().block_bytes(3));
    assert_eq!(ran.end, Ok(()));
    assert_eq!(ran.rows, [row(1, "a\nb"), row(2, "c"), row(3, "")]);
    let text = format!("csv: {}:3 (offset 5): 2 fields where", paths[3].display());
    assert!(ran.dead[0].starts_with(&text), "{:?}", ran.dead);
}

/// Ids as seconds of event time, hourly windows: counts by hour, and what was late.
fn hours(source: Files<Row, files::Json>) -> (Vec<(i64, u64)>, u64) {
    let (counts, sink) = testing::collect();
    let job = Job::new("hours");
    job.source(source)
        .event_time(
            |r| EventTime::from_seconds(i64::from(r.id)),
            Watermarks::monotonous(),
        )
        .key_by(|_| 0)
        .window(Tumbling::of(1.hours()))
        .aggregate(|a| a.count())
        .map(|w| (w.window.start.micros() / 3_600_000_000, w.value))
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    stepper.run().unwrap();
    let mut counts = counts.take();
    counts.sort_unstable();
    (counts, stepper.counters().late)
}

#[test]
fn the_watermark_goes_on_from_file_to_file() {
    // The second file falls back into the first hour, which has closed by then.
    let paths = [
        file("a.jsonl", "{\"id\":10}\n{\"id\":7300}\n"),
        file("b.jsonl", "{\"id\":20}\n{\"id\":7400}\n"),
    ];
    let sequence = hours(files::json::<Row>(&paths).in_sequence());
    assert_eq!(sequence, (vec![(0, 1), (2, 2)], 1));
    // Side by side each has a watermark of its own, and nothing is late.
    let (counts, late) = hours(files::json::<Row>(&paths));
    assert_eq!((counts, late), (vec![(0, 2), (2, 2)], 0));
}

#[test]
fn a_file_that_is_not_there_ends_the_build() {
    let good = file("a.jsonl", "{\"id\":1}\n");
    let folder = good.parent().unwrap();
    let missing = folder.join("none.jsonl");
    let text = refused(files::json::<Row>([&good, &missing, &good]).in_sequence());
    assert!(
        text.contains("none.jsonl: there is no such file; check the path"),
        "{text}"
    );
    let text = refused(files::json::<Row>([&good.clone(), &folder.to_owned()]).in_sequence());
    assert!(text.contains("is a folder; name the files in it"), "{text}");
    let text = refused(files::json::<Row>([&good]).in_sequence().split_every(10));
    assert!(text.contains("give one of the two"), "{text}");
    let text = refused(files::json::<Row>(vec![&good; 65_537]).in_sequence());
    assert!(
        text.contains("65537 files") && text.contains("at most 65536"),
        "{text}"
    );
}

/// Runs three files in sequence of which the one in the middle is `bad`; the error's text.
fn with_bad_middle(bad: &Path) -> String {
    let (first, last) = (
        file("a.jsonl", "{\"id\":1}\n"),
        file("c.jsonl", "{\"id\":3}\n"),
    );
    let ran = run(files::json::<Row>([&first, bad, &last]).in_sequence());
    assert_eq!(ran.rows[0], row(1, ""));
    assert!(!ran.rows.contains(&row(3, "")), "nothing is read behind it");
    let error = ran.end.unwrap_err();
    assert_eq!(error.code(), "PLT-0104");
    let text = error.to_string();
    assert!(text.contains(bad.to_str().unwrap()), "{text}");
    assert!(!text.contains("a.jsonl"), "{text}");
    text
}

#[test]
fn a_file_that_cannot_be_read_in_its_turn_stops_the_job_and_is_named() {
    let whole = gzip("{\"id\":2}\n".repeat(5_000).as_bytes());
    let text = with_bad_middle(&file("cut.gz", &whole[..whole.len() / 2]));
    assert!(text.contains("cut short; fetch it again"), "{text}");
    let text = with_bad_middle(&file("plain.gz", "{\"id\":2}\n"));
    assert!(text.contains("is not gzip"), "{text}");
    let text = with_bad_middle(&file("empty.gz", ""));
    assert!(text.contains("it is empty"), "{text}");
    let text = with_bad_middle(&file("wide.jsonl", [0xff, 0xfe, b'{', 0]));
    assert!(text.contains("is UTF-16"), "{text}");
}

#[test]
fn a_file_that_goes_away_before_its_turn_stops_the_job_and_is_named() {
    let (first, gone) = (file("a.jsonl", "{\"id\":1}\n"), file("b.jsonl", ""));
    let (job, rows, _) = job(files::json::<Row>([&first, &gone]).in_sequence());
    let mut stepper = Stepper::new(&job, 1).unwrap();
    std::fs::remove_file(&gone).unwrap();
    let JobError::Source {
        partition,
        offset,
        what,
        ..
    } = stepper.run().unwrap_err()
    else {
        panic!("not the source")
    };
    assert_eq!(partition, gone.display().to_string());
    assert_eq!(
        (offset, what.as_str()),
        (0, "there is no such file; check the path")
    );
    assert_eq!(rows.take().len(), 1);
}

#[test]
fn a_malformed_line_of_a_later_file_stops_the_job_with_its_place() {
    let paths = [
        file("a.jsonl", "{\"id\":1}\n"),
        file("b.jsonl", "{\"id\":2}\nx\n"),
    ];
    let dead = run(files::json::<Row>(&paths).in_sequence()).dead;
    assert!(dead[0].contains("b.jsonl:2 (offset 9)"), "{dead:?}");
    let ran = run(files::json::<Row>(&paths)
        .in_sequence()
        .on_error(OnError::Fail));
    assert_eq!(ran.rows.len(), 2);
    assert!(ran.end.unwrap_err().to_string().contains(&dead[0]));
}

#[test]
fn a_sequence_is_read_through_the_helper_thread() {
    let paths: Vec<_> = (0..20u32)
        .map(|f| {
            let rows = (0..f * 37).map(|i| format!("{{\"id\":{}}}\n", f * 1_000 + i));
            let content: String = rows.collect();
            match f % 3 {
                0 => file("rows.jsonl.gz", gzip(content.as_bytes())),
                _ => file("rows.jsonl", &content),
            }
        })
        .collect();
    let expected: Vec<u32> = (0..20)
        .flat_map(|f| (0..f * 37).map(move |i| f * 1_000 + i))
        .collect();
    let (rows, sink) = testing::collect();
    let job = Job::new("sequence");
    job.source(files::json::<Row>(&paths).in_sequence().block_bytes(100))
        .sink(sink);
    let config = Config::default().shards(2).driver(Driver::Threads);
    let report = job.run(config).unwrap();
    assert_eq!(report.counters.records_in, expected.len() as u64);
    let ids: Vec<u32> = rows.take().into_iter().map(|r| r.id).collect();
    assert_eq!(ids, expected, "in order");
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        (0..1000u32).prop_map(|id| format!("{{\"id\":{id}}}\n")),
        Just("\n".to_string()),
        "[a-z]{0,9}\r?\n",
    ]
}

proptest! {
    #![proptest_config(cases())]

    /// A sequence is what its files are when each is read alone: records, letters, payloads.
    #[test]
    fn a_sequence_is_its_files_one_after_another(
        contents in prop::collection::vec(
            (prop::collection::vec(line(), 0..8), any::<bool>(), any::<bool>()), 1..6),
        block in 1..40usize,
    ) {
        let paths: Vec<_> = contents
            .into_iter()
            .map(|(lines, zipped, cut)| {
                let mut content = lines.concat();
                if cut {
                    content.pop();
                }
                match zipped {
                    true => file("rows.gz", gzip(content.as_bytes())),
                    false => file("rows", content),
                }
            })
            .collect();
        let alone: Vec<_> = paths.iter().map(|p| run(files::json::<Row>([p]))).collect();
        let ran = run(files::json::<Row>(&paths).in_sequence().block_bytes(block));
        prop_assert_eq!(&ran.end, &Ok(()));
        prop_assert_eq!(ran.rows, alone.iter().flat_map(|r| r.rows.clone()).collect::<Vec<_>>());
        prop_assert_eq!(ran.dead, alone.iter().flat_map(|r| r.dead.clone()).collect::<Vec<_>>());
        prop_assert_eq!(
            ran.payloads,
            alone.iter().flat_map(|r| r.payloads.clone()).collect::<Vec<_>>()
        );
        prop_assert_eq!(ran.records_in, alone.iter().map(|r| r.records_in).sum::<u64>());
        for path in paths {
            std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        }
    }
}
