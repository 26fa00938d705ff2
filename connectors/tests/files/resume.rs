//! Files that are gone back to.

use super::*;
use pelton::port::Ports;
use pelton::source::{Emit, Position, Read, ReadError, Reader, Source};
use pelton::testing::conformance;
use proptest::prelude::*;
use std::sync::{Arc, Mutex};

fn cases() -> ProptestConfig {
    let cases = std::env::var("PELTON_CASES")
        .ok()
        .and_then(|n| n.parse().ok());
    ProptestConfig::with_cases(cases.unwrap_or(4))
}

/// JSON with all that may come: a mark, blank lines, what is no JSON, a line that is too long, no line end at the end.
fn rows() -> String {
    let long = "y".repeat(90);
    let row = |n: u32| match n % 7 {
        3 => "\n".to_string(),
        5 => format!("no json {n}\r\n"),
        6 => format!("{long}{n}\n"),
        _ => format!("{{\"id\":{n},\"name\":\"n{n}\"}}\n"),
    };
    format!(
        "\u{feff}{}{{\"id\":99}}",
        (0..30).map(row).collect::<String>()
    )
}

/// CSV with quoted line ends, a quote that is never closed, and a line with too many fields.
fn table() -> String {
    let row = |n: u32| match n % 6 {
        2 => format!("{n},\"two\nlines \"\"{n}\"\"\"\n"),
        4 => format!("{n},\"open\n"),
        5 => format!("{n},a,b\r\n"),
        _ => format!("{n},n{n}\n"),
    };
    format!("\nid,name\n{}77,end", (0..24).map(row).collect::<String>())
}

fn json(paths: &[PathBuf], block: usize) -> Files<Row, files::Json> {
    files::json(paths).block_bytes(block).line_max(60)
}

#[test]
fn files_keep_the_laws_of_positions() {
    let plain = file("rows.jsonl", rows());
    let zipped = file("rows.jsonl.gz", gzip(rows().as_bytes()));
    let members = [
        gzip(rows().as_bytes()),
        gzip(b"\n{\"id\":5}"),
        b"tail".to_vec(),
    ]
    .concat();
    let members = file("members.gz", members);
    for block in [1, 7, 64, 1 << 18] {
        for path in [&plain, &zipped, &members] {
            conformance::source(|| json(std::slice::from_ref(path), block)).unwrap();
        }
        for every in [10, 97, 5000] {
            let paths = [plain.clone(), zipped.clone()];
            conformance::source(|| json(&paths, block).split_every(every)).unwrap();
        }
        let paths = [
            plain.clone(),
            members.clone(),
            file("empty", ""),
            zipped.clone(),
        ];
        conformance::source(|| json(&paths, block).in_sequence()).unwrap();
    }
}

#[test]
fn csv_keeps_the_laws_of_positions() {
    let plain = file("rows.csv", table());
    let zipped = file("rows.csv.gz", gzip(table().as_bytes()));
    let other = file("other.csv", "name,id\na,1\nb,2\n");
    let make = |paths: &[&PathBuf], block| files::csv::<Row>(paths).block_bytes(block).line_max(80);
    for block in [1, 7, 1 << 18] {
        conformance::source(|| make(&[&plain], block)).unwrap();
        conformance::source(|| make(&[&plain, &zipped], block).split_every(40)).unwrap();
        conformance::source(|| make(&[&other, &zipped, &other, &plain], block).in_sequence())
            .unwrap();
        conformance::source(|| make(&[&plain], block).without_header()).unwrap();
    }
}

/// A source whose partitions are put to a position when they open, and that tells the position of the last read.
struct Resumed<S> {
    source: S,
    from: Vec<Option<Position>>,
    at: Arc<Mutex<Vec<Option<Position>>>>,
}

struct ResumedReader<R> {
    reader: R,
    number: usize,
    at: Arc<Mutex<Vec<Option<Position>>>>,
}

impl<S: Source> Source for Resumed<S> {
    type Item = S::Item;
    type Reader = ResumedReader<S::Reader>;
    fn name(&self) -> String {
        self.source.name()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<Self::Reader>, String> {
        let mut readers = self.source.open(ports)?;
        for (reader, from) in readers.iter_mut().zip(&self.from) {
            if let Some(position) = from {
                reader.seek(position)?;
            }
        }
        *self.at.lock().unwrap() = readers.iter().map(Reader::position).collect();
        let wrap = |(number, reader)| ResumedReader {
            reader,
            number,
            at: self.at.clone(),
        };
        Ok(readers.into_iter().enumerate().map(wrap).collect())
    }
}

impl<R: Reader> Reader for ResumedReader<R> {
    type Item = R::Item;
    fn name(&self) -> String {
        self.reader.name()
    }
    fn place(&self, offset: u64) -> (String, u64) {
        self.reader.place(offset)
    }
    fn read<E: Emit<R::Item>>(&mut self, max: usize, out: &mut E) -> Result<Read, ReadError> {
        let read = self.reader.read(max, out);
        self.at.lock().unwrap()[self.number] = self.reader.position();
        read
    }
}

/// Rows, letters, and the position at the end.
type Run = (Vec<Row>, Vec<String>, Option<Position>);

/// Reads a source from a position on to the end.
fn read_from<F: Format<Row>>(source: Files<Row, F>, from: Option<Position>) -> Result<Run, String> {
    let at = Arc::new(Mutex::new(vec![]));
    let resumed = Resumed {
        source,
        from: vec![from],
        at: at.clone(),
    };
    let (rows, sink) = testing::collect();
    let (dead, letters) = testing::collect();
    let job = Job::new("resumed");
    job.source(resumed).sink(sink);
    job.dead_letters_to::<_>(letters);
    let mut stepper = Stepper::new(&job, 1).map_err(|e| e.to_string())?;
    stepper.run().map_err(|e| e.to_string())?;
    let letters = dead.take().iter().map(ToString::to_string).collect();
    let position = at.lock().unwrap()[0].clone();
    Ok((rows.take(), letters, position))
}

#[test]
fn a_file_that_has_grown_is_the_same() {
    for zipped in [false, true] {
        let bytes = |s: &str| match zipped {
            true => gzip(s.as_bytes()),
            false => s.as_bytes().to_vec(),
        };
        let begun = "{\"id\":1}\n{\"id\":2}\n";
        let more = format!("bad\n{}", "{\"id\":3}\n".repeat(1000));
        let path = file("rows", bytes(begun));
        let source = || files::json::<Row>([&path]);
        let (_, _, position) = read_from(source(), None).unwrap();
        let grown = [bytes(begun), bytes(&more)].concat();
        std::fs::write(&path, grown).unwrap();
        let (rows, letters, _) = read_from(source(), position.clone()).unwrap();
        assert_eq!(rows, vec![row(3, ""); 1000]);
        assert!(letters[0].contains(":3 (offset 18)"), "{letters:?}");
        // A copy, and one that was compressed anew.
        let whole = bytes(&format!("{begun}{more}"));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, whole).unwrap();
        assert_eq!(read_from(source(), position).unwrap().0.len(), 1000);
    }
}

#[test]
fn another_file_a_shorter_one_and_none_are_refused() {
    let content = "{\"id\":1}\n{\"id\":2}\n";
    let path = file("rows.jsonl", content);
    let source = || files::json::<Row>([&path]);
    let (_, _, position) = read_from(source(), None).unwrap();
    let refused = |content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        read_from(source(), position.clone()).unwrap_err()
    };
    let advice = "put back the file that it was, or start the job without its checkpoints";
    let other = refused(b"{\"id\":7}\n{\"id\":2}\n{\"id\":3}\n");
    assert!(other.contains("another file has this name now"), "{other}");
    assert!(
        other.contains("up to byte 18") && other.contains(advice),
        "{other}"
    );
    let cut = refused(b"{\"id\":1}\n");
    assert!(
        cut.contains("another file") && cut.contains(advice),
        "{cut}"
    );
    std::fs::remove_file(&path).unwrap();
    let gone = read_from(source(), position.clone()).unwrap_err();
    assert!(gone.contains("there is no such file"), "{gone}");
    // A long one that was cut behind what it is known by.
    let long = "{\"id\":1}\n".repeat(1000);
    std::fs::write(&path, &long).unwrap();
    let (_, _, position) = read_from(source(), None).unwrap();
    std::fs::write(&path, &long[..8997]).unwrap();
    let cut = read_from(source(), position).unwrap_err();
    assert!(
        cut.contains("it has 8997 bytes, and was read up to byte 9000"),
        "{cut}"
    );
    assert!(cut.contains(advice), "{cut}");
    std::fs::write(&path, gzip(long.as_bytes())).unwrap();
    let (_, _, position) = read_from(source(), None).unwrap();
    std::fs::write(&path, gzip(&long.as_bytes()[..8991])).unwrap();
    let cut = read_from(source(), position).unwrap_err();
    assert!(cut.contains("ends 9 bytes before the position"), "{cut}");
}

#[test]
fn a_later_file_of_a_sequence_is_named_where_it_is_another() {
    let paths = [
        file("a.jsonl", "{\"id\":1}\n"),
        file("b.jsonl", "{\"id\":2}\n"),
    ];
    let source = |n: usize| files::json::<Row>(&paths[..n]).in_sequence();
    let (_, _, position) = read_from(source(2), None).unwrap();
    assert_eq!(read_from(source(2), position.clone()).unwrap().0, []);
    let fewer = read_from(source(1), position.clone()).unwrap_err();
    assert!(
        fewer.contains("byte 281474976710665") || fewer.contains("file 2"),
        "{fewer}"
    );
    // The first may be emptied or be another by now: it has been read.
    std::fs::write(&paths[0], "").unwrap();
    assert_eq!(read_from(source(2), position.clone()).unwrap().0, []);
    std::fs::write(&paths[1], "{\"id\":3}\n{\"id\":4}\n").unwrap();
    let other = read_from(source(2), position.clone()).unwrap_err();
    assert!(other.contains("b.jsonl: another file"), "{other}");
    std::fs::remove_file(&paths[1]).unwrap();
    let gone = read_from(source(2), position).unwrap_err();
    assert!(gone.contains("b.jsonl: there is no such file"), "{gone}");
}

#[test]
fn a_split_file_that_has_grown_into_more_ranges_is_refused() {
    let path = file("rows.jsonl", "{\"id\":1}\n");
    let source = || files::json::<Row>([&path]).split_every(10);
    let (_, _, position) = read_from(source(), None).unwrap();
    std::fs::write(&path, "{\"id\":1}\n{\"id\":2}\n").unwrap();
    let refused = read_from(source(), position).unwrap_err();
    assert!(
        refused.contains("its byte range ends elsewhere"),
        "{refused}"
    );
}

#[test]
fn a_large_gzip_file_is_inflated_in_pieces_by_the_helper_thread() {
    let content = format!("{{\"id\":1,\"name\":\"{}\"}}\n", "x".repeat(1000)).repeat(9_000);
    let path = file("rows.gz", gzip(content.as_bytes()));
    let source = || files::json::<Row>([&path]);
    let (_, _, end) = read_from(source(), None).unwrap();
    // The line before the last.
    let mut position = end.unwrap();
    position.offset -= 2 * (content.len() / 9_000) as u64;
    let (rows, sink) = testing::collect();
    let job = Job::new("resumed");
    job.source(Resumed {
        source: source(),
        from: vec![Some(position)],
        at: Arc::default(),
    })
    .sink(sink);
    job.run(Config::default().shards(1).driver(Driver::Threads))
        .unwrap();
    assert_eq!(rows.take().len(), 2);
}

#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_read_again_has_no_position() {
    let what = conformance::source(|| files::json::<Row>(["/dev/null"])).unwrap_err();
    assert!(what.contains("it has no position"), "{what}");
    let path = file("rows.jsonl", "{\"id\":1}\n");
    let paths = [path, PathBuf::from("/dev/null")];
    let what = conformance::source(|| files::json::<Row>(&paths).in_sequence()).unwrap_err();
    assert!(what.contains("it has no position"), "{what}");
}

proptest! {
    #![proptest_config(cases())]

    /// Any bytes in any mixture keep the laws.
    #[test]
    fn any_files_keep_the_laws(
        contents in prop::collection::vec(("([a-c\",\r\n]|\\{\"id\":[0-9]\\}\n){0,30}", any::<bool>()), 1..4),
        block in 1..40usize,
        every in 1..50u64,
        longest in 1..20usize,
    ) {
        let paths: Vec<_> = contents
            .iter()
            .map(|(content, zipped)| match zipped {
                true => file("rows", gzip(content.as_bytes())),
                false => file("rows", content),
            })
            .collect();
        let json = || files::json::<Row>(&paths).block_bytes(block).line_max(longest);
        let csv = || files::csv::<(String,)>(&paths).without_header().block_bytes(block).line_max(longest);
        let checks = [
            conformance::source(json),
            conformance::source(|| json().split_every(every)),
            conformance::source(|| json().in_sequence()),
            conformance::source(csv),
            conformance::source(|| csv().in_sequence()),
        ];
        for check in checks {
            prop_assert_eq!(check, Ok(()));
        }
        for path in paths {
            std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        }
    }
}
