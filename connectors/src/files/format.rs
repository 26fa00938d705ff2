//! What a line's bytes mean: JSON, CSV.

use super::frame::Quotes;
use csv::ByteRecord;
use csv_core::ReadRecordResult;
use serde::de::DeserializeOwned;

/// Turns a line's bytes into a record. One clone a partition.
pub trait Format<T>: Clone + Send + 'static {
    /// The name in errors: `json`.
    fn name(&self) -> &'static str;
    /// Whether quoted fields may hold line ends.
    #[doc(hidden)]
    fn quotes(&self) -> Option<Quotes> {
        None
    }
    /// Whether a file's first line belongs to the format and is no record.
    #[doc(hidden)]
    fn has_header(&self) -> bool {
        false
    }
    /// Takes that line.
    #[doc(hidden)]
    fn header(&mut self, _line: &[u8]) -> Result<(), String> {
        Ok(())
    }
    /// Whether a line without its end is as good as none.
    fn is_blank(&self, line: &[u8]) -> bool {
        line.is_empty()
    }
    /// The record, or why there is none.
    fn decode(&mut self, line: &[u8]) -> Result<T, String>;
}

/// A JSON value on each line. See [`super::json`].
#[derive(Clone, Debug)]
pub struct Json(());

impl Json {
    pub(super) fn new() -> Self {
        Json(())
    }
}

impl<T: DeserializeOwned> Format<T> for Json {
    fn name(&self) -> &'static str {
        "json"
    }
    #[inline]
    fn is_blank(&self, line: &[u8]) -> bool {
        line.trim_ascii_start().is_empty()
    }
    #[inline]
    fn decode(&mut self, line: &[u8]) -> Result<T, String> {
        // Checked once for the line: from_slice would check each string of it, at several times the cost.
        let text = std::str::from_utf8(line)
            .map_err(|e| format!("invalid UTF-8, column {}", e.valid_up_to() + 1))?;
        serde_json::from_str(text).map_err(|e| json_reason(&e))
    }
}

/// serde_json's text ends in `at line 1 column N`, and the line is always 1 here.
#[cold]
fn json_reason(e: &serde_json::Error) -> String {
    let text = e.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) => format!("{what}, column {}", e.column()),
        None => text,
    }
}

/// Fields between delimiters on each line. See [`super::csv`].
pub struct Csv {
    delimiter: u8,
    with_header: bool,
    header: Option<ByteRecord>,
    parser: csv_core::Reader,
    /// Where the parser writes a line's fields, unquoted, one after another; grown to the longest line.
    fields: Vec<u8>,
    /// The end of each in `fields`; grown to the most fields.
    ends: Vec<usize>,
    record: ByteRecord,
}

impl Clone for Csv {
    fn clone(&self) -> Self {
        Csv {
            header: self.header.clone(),
            with_header: self.with_header,
            // A csv_core::Reader's own clone (0.1.13) loses its tables.
            ..Csv::with(self.delimiter)
        }
    }
}

impl std::fmt::Debug for Csv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Csv({:?})", char::from(self.delimiter))
    }
}

impl Csv {
    pub(super) fn new() -> Self {
        Self::with(b',')
    }

    fn with(delimiter: u8) -> Self {
        Csv {
            delimiter,
            with_header: true,
            header: None,
            parser: parser(delimiter),
            fields: vec![0; 256],
            ends: vec![0; 32],
            record: ByteRecord::new(),
        }
    }

    pub(super) fn delimiter(&mut self, delimiter: u8) {
        self.delimiter = delimiter;
        self.parser = parser(delimiter);
    }

    pub(super) fn without_header(&mut self) {
        self.with_header = false;
    }

    /// Cuts a line into `self.record`.
    fn cut(&mut self, line: &[u8]) -> Result<(), String> {
        let (mut input, mut ended) = (line, false);
        let (mut written, mut count) = (0, 0);
        loop {
            let (result, read, out, ends) = self.parser.read_record(
                input,
                &mut self.fields[written..],
                &mut self.ends[count..],
            );
            input = &input[read..];
            written += out;
            count += ends;
            match result {
                ReadRecordResult::Record => break,
                ReadRecordResult::OutputFull => self.fields.resize(self.fields.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                // The line end was cut off; the parser wants to see it.
                ReadRecordResult::InputEmpty if !ended => {
                    (input, ended) = (b"\n", true);
                }
                // In quotes the line end was taken for a part of the field.
                ReadRecordResult::InputEmpty | ReadRecordResult::End => {
                    self.parser.reset();
                    return Err("a quoted field is not closed".into());
                }
            }
        }
        self.record.clear();
        let mut from = 0;
        for &end in &self.ends[..count] {
            self.record.push_field(&self.fields[from..end]);
            from = end;
        }
        Ok(())
    }
}

/// A parser to which only `\n` ends a record: the framer has cut a `\r` before it off, and one elsewhere is data.
fn parser(delimiter: u8) -> csv_core::Reader {
    csv_core::ReaderBuilder::new()
        .delimiter(delimiter)
        .terminator(csv_core::Terminator::Any(b'\n'))
        .build()
}

impl<T: DeserializeOwned> Format<T> for Csv {
    fn name(&self) -> &'static str {
        "csv"
    }
    fn quotes(&self) -> Option<Quotes> {
        Some(Quotes {
            delimiter: self.delimiter,
        })
    }
    fn has_header(&self) -> bool {
        self.with_header
    }
    fn header(&mut self, line: &[u8]) -> Result<(), String> {
        self.cut(line)?;
        self.header = Some(self.record.clone());
        Ok(())
    }
    fn decode(&mut self, line: &[u8]) -> Result<T, String> {
        self.cut(line)?;
        if let Some(header) = &self.header
            && header.len() != self.record.len()
        {
            return Err(format!(
                "{} fields where the header names {}",
                self.record.len(),
                header.len()
            ));
        }
        self.record
            .deserialize(self.header.as_ref())
            .map_err(|e| csv_reason(&e, self.header.as_ref()))
    }
}

#[cold]
fn csv_reason(e: &csv::Error, header: Option<&ByteRecord>) -> String {
    let csv::ErrorKind::Deserialize { err, .. } = e.kind() else {
        return e.to_string();
    };
    let Some(field) = err.field() else {
        return err.kind().to_string();
    };
    let name = header
        .and_then(|h| h.get(usize::try_from(field).ok()?))
        .map(String::from_utf8_lossy);
    match name {
        Some(name) => format!("column {name}: {}", err.kind()),
        None => format!("field {}: {}", field + 1, err.kind()),
    }
}
