//! Documents are held to the sources: docs/operators.md names every operator of the typed API, no other, and for each an example that is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Those whose methods take them and make something else of them: operators, and the sinks that end a stream.
const STREAMS: [&str; 3] = ["Stream", "KeyedStream", "OrderedStream"];

/// What the doc of something public has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doc {
    Example,
    /// To whose doc has one.
    Link,
    Neither,
}

impl Doc {
    fn of(doc: &str) -> Doc {
        if doc.contains("```") {
            Doc::Example
        } else if doc.contains("[`") {
            Doc::Link
        } else {
            Doc::Neither
        }
    }
}

/// What is public in the sources, by name (`Stream::map`, `Tumbling`).
#[derive(Default)]
struct Public {
    docs: BTreeMap<String, Doc>,
    operators: BTreeSet<String>,
}

fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the workspace")
}

/// The type that an `impl` is of, and nothing for that of a trait.
fn implemented(head: &str) -> Option<String> {
    let mut rest = head.strip_prefix("impl")?;
    if rest.starts_with('<') {
        rest = &rest[after_brackets(rest)..];
    }
    // What stands before `where` and outside of brackets: `A<..>`, or `Trait<..> for A<..>`.
    let name: String = rest
        .trim()
        .chars()
        .take_while(|c| !"< {".contains(*c))
        .collect();
    let behind = &rest.trim()[name.len()..];
    let behind = match behind.starts_with('<') {
        true => &behind[after_brackets(behind)..],
        false => behind,
    };
    (!behind.trim_start().starts_with("for ")).then_some(name)
}

/// Where the brackets that `text` begins with have been closed; the `>` of `->` closes none.
fn after_brackets(text: &str) -> usize {
    let mut depth = 0;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if before != '-' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
        before = c;
    }
    text.len()
}

/// What a function returns: behind the `->` that stands outside of its arguments and generics.
fn returned(signature: &str) -> &str {
    let open = signature.find(['(', '<']).unwrap_or(0);
    let mut rest = &signature[open..];
    if rest.starts_with('<') {
        rest = &rest[after_brackets(rest)..];
    }
    let mut depth = 0;
    let close = rest.char_indices().find(|&(_, c)| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth == 0
    });
    let behind = close.map_or("", |(at, _)| &rest[at + 1..]);
    let behind = behind.trim_start().strip_prefix("->").unwrap_or("");
    behind
        .split(" where")
        .next()
        .unwrap_or("")
        .trim_end_matches('{')
        .trim()
}

/// Whether a public function makes a stream, or takes one for good.
fn is_operator(of: &str, signature: &str) -> bool {
    let to = returned(signature);
    let takes_it = ["(self)", "(self,", "( self,", "(mut self"]
        .iter()
        .any(|s| signature.contains(s));
    let is_stream = to.contains("Stream<") || to.starts_with("Aggregated<");
    is_stream || (STREAMS.contains(&of) && takes_it && to != "Self")
}

/// Goes through one file, line by line as rustfmt leaves it.
fn read(text: &str, public: &mut Public) {
    let mut of: Option<String> = None;
    let mut doc = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let code = line.trim_start();
        if code.starts_with("///") {
            doc += code;
            doc.push('\n');
            continue;
        }
        // Attributes stand between a doc and what it is of.
        if code.starts_with("#[") {
            continue;
        }
        let head = |lines: &mut std::str::Lines<'_>| {
            let mut head = code.to_string();
            while !head.ends_with(['{', ';', '}']) {
                let Some(next) = lines.next() else { break };
                head += " ";
                head += next.trim();
            }
            head
        };
        if line.starts_with("impl") {
            of = implemented(&head(&mut lines));
        } else if let Some(name) = line.strip_prefix("pub struct ") {
            let name = name.chars().take_while(|c| c.is_alphanumeric());
            public.docs.insert(name.collect(), Doc::of(&doc));
        } else if let (Some(of), Some(name)) = (&of, line.strip_prefix("    pub fn ")) {
            let name: String = name
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let name = format!("{of}::{name}");
            if is_operator(of, &head(&mut lines)) {
                public.operators.insert(name.clone());
            }
            public.docs.insert(name, Doc::of(&doc));
        } else if line == "}" {
            of = None;
        }
        doc.clear();
    }
}

fn walk(folder: &Path, public: &mut Public) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(&path, public);
        } else if path.extension().is_some_and(|e| e == "rs") {
            read(&fs::read_to_string(&path).expect("a source"), public);
        }
    }
}

/// The names in backticks.
fn names(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(String::from)
        .collect()
}

/// The rows of the document's tables.
fn rows() -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("docs/operators.md")).expect("docs/operators.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        row.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_string())
            .collect()
    })
    .collect()
}

fn sources() -> Public {
    let mut public = Public::default();
    walk(&root().join("engine/src"), &mut public);
    public
}

/// The reader of sources sees what it is to see: each kind of operator, and no other method.
#[test]
fn sources_are_read() {
    let Public { docs, operators } = sources();
    for name in [
        "Stream::map",
        "Stream::fork",
        "Stream::sink",
        "Stream::side_output",
        "Stream::partition_by",
        "KeyedStream::connect",
        "KeyedStream::window",
        "OrderedStream::deduplicate_to_last",
        "WindowedStream::aggregate",
        "Changelog::fold",
        "Applied::top",
        "RegularJoin::anti",
        "LookupJoin::outcomes",
        "Process::each",
        "BroadcastProcess::each",
        "KeyedStream::materialize",
        "Job::source",
        "OverStream::aggregate",
    ] {
        assert!(operators.contains(name), "{name} is not seen");
    }
    for name in [
        "Stream::uid",
        "OrderedStream::late_to",
        "IntervalJoin::lower_exclusive",
        "Tumbling::offset",
    ] {
        assert!(docs.contains_key(name), "{name} is not seen");
        assert!(!operators.contains(name), "{name} is no operator");
    }
    let text = "impl<P: Pipeline> Stream<P> {\n    /// Doc.\n    pub fn new_one<F>(\n        self,\n        f: F,\n    ) -> Stream<impl Pipeline<Item = u8>>\n    where\n        F: Fn(u8) -> u8,\n    {\n    }\n}\n";
    let mut one = Public::default();
    read(text, &mut one);
    assert!(one.operators.contains("Stream::new_one"));
    assert_eq!(one.docs["Stream::new_one"], Doc::Neither);
}

#[test]
fn the_table_of_operators_is_whole() {
    let Public { docs, operators } = sources();
    let mut told = BTreeSet::new();
    for row in rows() {
        assert_eq!(row.len(), 6, "a row has six cells: {row:?}");
        assert!(
            row.iter().all(|cell| !cell.is_empty()),
            "a cell is empty: {row:?}"
        );
        for name in names(&row[0]) {
            assert!(
                docs.contains_key(&name),
                "docs/operators.md names `{name}`, which is not in engine/src"
            );
            told.insert(name);
        }
        let examples = names(&row[5]);
        assert!(!examples.is_empty(), "no example: {row:?}");
        for name in examples {
            let has = docs.get(&name);
            assert_eq!(
                has,
                Some(&Doc::Example),
                "the example of `{name}`, which docs/operators.md names, is not there"
            );
        }
    }
    for name in &operators {
        assert_ne!(
            docs[name],
            Doc::Neither,
            "the doc of `{name}` has no example and leads to none"
        );
    }
    let missing: Vec<_> = operators.difference(&told).collect();
    assert!(
        missing.is_empty(),
        "these operators are not in docs/operators.md: {missing:?}"
    );
}
