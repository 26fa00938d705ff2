//! The framer against models, with blocks of every size.

use super::*;
use proptest::prelude::*;

type Cut = (Vec<u8>, u64, Option<u64>, Option<Bad>);

const START: Start = Start {
    offset: 0,
    line: Some(1),
    skip: false,
    end: u64::MAX,
};

const COMMA: Option<Quotes> = Some(Quotes { delimiter: b',' });

/// Everything a framer finds in `bytes`, given in blocks of the sizes that `sizes` repeats.
fn cut(
    bytes: &[u8],
    quotes: Option<Quotes>,
    max: usize,
    sizes: &[usize],
    start: Start,
) -> Vec<Cut> {
    let mut framer = Framer::new(quotes, max, start);
    let mut found = vec![];
    let keep = |r: Record<'_>| (r.bytes.to_vec(), r.offset, r.line, r.bad);
    let (mut left, mut n) = (bytes, 0);
    let mut fed = start.offset;
    while !left.is_empty() {
        let size = sizes[n % sizes.len()].min(left.len());
        let (block, rest) = left.split_at(size);
        (left, n) = (rest, n + 1);
        let mut at = 0;
        loop {
            if framer.is_past() {
                return found;
            }
            assert_eq!(framer.position(), fed + at as u64);
            let Some(record) = framer.next(block, &mut at) else {
                break;
            };
            found.push(keep(record));
        }
        fed += size as u64;
    }
    loop {
        if framer.is_past() {
            return found;
        }
        if let Some(record) = framer.next(&[], &mut 0) {
            found.push(keep(record));
        } else if let Some(record) = framer.finish() {
            found.push(keep(record));
        } else {
            return found;
        }
    }
}

/// The lines of `bytes`, found the slow way.
fn model(bytes: &[u8], max: usize) -> Vec<Cut> {
    let mut lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
    if lines.last().is_some_and(|l| l.is_empty()) {
        lines.pop();
    }
    let mut offset = 0;
    let mut found = vec![];
    for (n, line) in lines.into_iter().enumerate() {
        let at = (offset, Some(n as u64 + 1));
        offset += line.len() as u64 + 1;
        found.push(if line.len() > max {
            (line[..max].to_vec(), at.0, at.1, Some(Bad::TooLong))
        } else {
            (
                line.strip_suffix(b"\r").unwrap_or(line).to_vec(),
                at.0,
                at.1,
                None,
            )
        });
    }
    found
}

fn cases() -> u32 {
    std::env::var("PELTON_CASES")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(256)
}

fn text(of: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(proptest::sample::select(of), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn lines_are_those_of_the_model(
        bytes in text(b"ab\r\n\n"),
        sizes in proptest::collection::vec(1usize..9, 1..4),
        max in 1usize..12,
    ) {
        let found = cut(&bytes, None, max, &sizes, START);
        prop_assert_eq!(found, model(&bytes, max));
    }

    #[test]
    fn each_record_belongs_to_one_range(
        bytes in text(b"abc\n\n"),
        sizes in proptest::collection::vec(1usize..9, 1..4),
        every in 1u64..20,
        max in 1usize..12,
    ) {
        let mut joined = vec![];
        let mut from = 0;
        while from < bytes.len() as u64 {
            let start = match from {
                0 => Start { end: every, ..START },
                _ => Start { offset: from - 1, line: None, skip: true, end: from + every },
            };
            let rest = &bytes[start.offset as usize..];
            joined.extend(cut(rest, None, max, &sizes, start));
            from += every;
        }
        for record in &mut joined {
            record.2 = None;
        }
        let mut all = model(&bytes, max);
        for record in &mut all {
            record.2 = None;
        }
        prop_assert_eq!(joined, all);
    }

    #[test]
    fn quoted_records_do_not_depend_on_blocks(
        bytes in text(b"a,\"\"\n\n\r"),
        sizes in proptest::collection::vec(1usize..9, 1..4),
        max in 1usize..30,
    ) {
        let whole = cut(&bytes, COMMA, max, &[usize::MAX], START);
        prop_assert_eq!(&cut(&bytes, COMMA, max, &sizes, START), &whole);
        // Nothing is lost: records and line ends make up the input, but for what was passed over.
        for (record, offset, _, bad) in &whole {
            let at = *offset as usize;
            prop_assert_eq!(&bytes[at..at + record.len()], &record[..]);
            prop_assert!(bad.is_some() || record.len() <= max);
        }
        for pair in whole.windows(2) {
            prop_assert!(pair[0].1 + pair[0].0.len() as u64 <= pair[1].1);
            let newlines = bytes[pair[0].1 as usize..pair[1].1 as usize]
                .iter()
                .filter(|b| **b == b'\n')
                .count() as u64;
            prop_assert_eq!(pair[0].2.unwrap() + newlines, pair[1].2.unwrap());
        }
    }

    #[test]
    fn csv_is_cut_as_the_csv_crate_does(
        rows in proptest::collection::vec(
            proptest::collection::vec("[a,\"\n]{0,5}", 2..4), 0..6),
        sizes in proptest::collection::vec(1usize..9, 1..4),
    ) {
        let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(vec![]);
        for row in &rows {
            writer.write_record(row).unwrap();
        }
        let bytes = writer.into_inner().unwrap();
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(&bytes[..]);
        let places: Vec<(u64, Option<u64>)> = reader
            .records()
            .map(|r| r.unwrap().position().map(|p| (p.byte(), Some(p.line()))).unwrap())
            .collect();
        let found = cut(&bytes, COMMA, 1 << 20, &sizes, START);
        prop_assert!(found.iter().all(|f| f.3.is_none()));
        let found: Vec<_> = found.into_iter().map(|f| (f.1, f.2)).collect();
        prop_assert_eq!(found, places);
    }
}

#[test]
fn an_open_quote_costs_its_line() {
    let bytes = b"1,2\n3,\"4\n5,6\n7,8\n9,\"0";
    let expected = vec![
        (b"1,2".to_vec(), 0, Some(1), None),
        (b"3,\"4".to_vec(), 4, Some(2), Some(Bad::OpenQuote)),
        (b"5,6".to_vec(), 9, Some(3), None),
        (b"7,8".to_vec(), 13, Some(4), None),
        (b"9,\"0".to_vec(), 17, Some(5), Some(Bad::OpenQuote)),
    ];
    // The second quote closes the first if a record may be as long as that, so let it not.
    for size in 1..bytes.len() + 1 {
        assert_eq!(
            cut(bytes, COMMA, 10, &[size], START),
            expected,
            "blocks of {size}"
        );
    }
    // A quote that stands alone at the very end of the input is open as well.
    let found = cut(b"a\n\"", COMMA, 10, &[1], START);
    assert_eq!(found[1], (b"\"".to_vec(), 2, Some(2), Some(Bad::OpenQuote)));
}

#[test]
fn a_quoted_record_may_span_lines_and_a_quote_inside_a_field_opens_nothing() {
    let bytes = b"a,\"b\n\"\"c\",d\ne\"f,g\n";
    for size in 1..bytes.len() + 1 {
        assert_eq!(
            cut(bytes, COMMA, 100, &[size], START),
            vec![
                (b"a,\"b\n\"\"c\",d".to_vec(), 0, Some(1), None),
                (b"e\"f,g".to_vec(), 12, Some(3), None),
            ]
        );
    }
}
