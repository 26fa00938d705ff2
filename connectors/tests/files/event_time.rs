//! Records of files that have no valid event time: told with file, line, offset and the line itself.

use super::*;

#[derive(Clone, Debug, Deserialize)]
struct Timed {
    at: Option<i64>,
}

fn timed(source: Files<Timed, files::Json>) -> Ran<Timed> {
    let (rows, sink) = testing::collect();
    let (dead, letters) = testing::collect::<pelton::push::DeadLetter>();
    let job = Job::new("timed");
    job.source(source)
        .event_time(
            |r| r.at.map(EventTime::from_micros),
            Watermarks::monotonous(),
        )
        .sink(sink);
    job.dead_letters_to(letters);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    let end = stepper.run();
    let counters = stepper.counters();
    let letters = dead.take();
    Ran {
        rows: rows.take(),
        dead: letters.iter().map(ToString::to_string).collect(),
        payloads: letters.into_iter().map(|l| l.payload).collect(),
        end,
        records_in: counters.records_in,
        malformed: counters.malformed,
    }
}

/// Two files: the second has a line without a time, one that is no record, and one out of range.
fn paths() -> [PathBuf; 2] {
    let never = format!("{{\"at\":{}}}", i64::MAX);
    [
        file("a.jsonl", "{\"at\":1}\n{\"at\":2}\n"),
        file(
            "b.jsonl.gz",
            gzip(format!("{{\"at\":3}}\n\n{{\"at\":null}}\nx\n{never}\n{{\"at\":4}}").as_bytes()),
        ),
    ]
}

#[test]
fn a_record_without_a_time_is_told_with_its_line() {
    let paths = paths();
    let at = paths[1].display();
    for in_sequence in [false, true] {
        let source = files::json::<Timed>(&paths).block_bytes(5);
        let ran = timed(if in_sequence {
            source.in_sequence()
        } else {
            source
        });
        assert_eq!(ran.end, Ok(()));
        assert_eq!((ran.records_in, ran.malformed, ran.rows.len()), (7, 3, 4));
        for (text, end) in ran.dead.iter().zip([
            format!(": {at}:3 (offset 10): the event time is NULL"),
            format!("json: {at}:4 (offset 22): expected value, column 1"),
            format!(
                ": {at}:5 (offset 24): the event time {} us is outside the range of -2^62 to 2^62",
                i64::MAX
            ),
        ]) {
            assert!(text.ends_with(&end), "{text:?} does not end in {end:?}");
        }
        let never = format!("{{\"at\":{}}}", i64::MAX);
        let payloads = [b"{\"at\":null}" as &[u8], b"x", never.as_bytes()];
        assert_eq!(ran.payloads, payloads);
    }
}

#[test]
fn a_record_without_a_time_stops_the_job_where_a_malformed_one_would() {
    let paths = paths();
    let text = &timed(files::json::<Timed>(&paths).in_sequence()).dead[0];
    let ran = timed(
        files::json::<Timed>(&paths)
            .in_sequence()
            .on_error(OnError::Fail),
    );
    let error = ran.end.unwrap_err();
    assert_eq!(error.code(), "PLT-0103");
    assert!(error.to_string().contains(text), "{error}");
    assert_eq!(ran.rows.len(), 3, "what comes after it is not read");
}
