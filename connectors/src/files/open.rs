//! Opens files and looks at their first bytes: gzip or plain, byte-order marks, a CSV header.

use super::format::Format;
use super::frame::{Framer, Start};
use super::gzip::{MAGIC, Members, Tail};
use super::resume::{Head, KNOWN_BY};
use std::fs::File;
use std::io::{self, Cursor, ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

/// Bytes that a CSV header may have.
const HEADER_MAX: usize = 1 << 20;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A regular file of so many bytes.
    Plain { bytes: u64 },
    /// gzip, or something that cannot be read from the middle (a pipe).
    Stream,
}

/// A file whose head has been read.
pub(super) struct Opened {
    pub kind: Kind,
    file: Arc<File>,
    /// What was read of it beyond mark and header, in front of the rest.
    input: Input,
    start: Start,
    known: Option<Head>,
}

/// Bytes of a partition in order.
pub(super) struct Input {
    pub read: Box<dyn Read + Send>,
    /// Whether reading waits for whole blocks: not where bytes come as somebody writes them.
    pub fill: bool,
    /// Bytes up to the range's end: beyond it little is needed, so little is read ahead.
    pub wanted: u64,
    /// What to say of the file when it cannot be read: its name.
    pub path: String,
    /// Where it is gzip: what stands behind the data.
    pub gzip: Option<Tail>,
    /// Where it can be read from any byte on.
    pub file: Option<Arc<File>>,
    /// Bytes to pass over before the first that is wanted.
    pub skip: u64,
}

impl Input {
    /// Goes on at byte `to` of what the file holds, instead of at `from`, where it stands.
    pub fn go_to(&mut self, from: u64, to: u64, end: u64) {
        match &self.file {
            Some(file) => {
                self.read = Box::new(At {
                    file: file.clone(),
                    offset: to,
                });
            }
            None => self.skip = to.saturating_sub(from),
        }
        self.wanted = end.saturating_sub(to);
    }

    /// The file's length, where it is plain.
    pub fn length(&self) -> Result<Option<u64>, String> {
        let Some(file) = &self.file else {
            return Ok(None);
        };
        match file.metadata() {
            Ok(meta) => Ok(Some(meta.len())),
            Err(e) => Err(reason(&e, false)),
        }
    }
}

/// A partition.
pub(super) struct Part {
    pub input: Input,
    pub start: Start,
    /// What its file is known by; `None` for one that cannot be read again (a pipe).
    pub known: Option<Head>,
}

impl Opened {
    /// The file as one partition.
    pub fn whole(self) -> Part {
        Part {
            input: self.input,
            start: self.start,
            known: self.known,
        }
    }

    /// `count` ranges of `every` bytes. The last goes on to wherever the file ends by then.
    pub fn ranges(self, count: u64, every: u64) -> Vec<Part> {
        let Opened {
            file,
            input,
            start,
            known,
            ..
        } = self;
        let path = input.path.clone();
        // The first record is the first range's, even if a mark and a header before it fill that range.
        let first = start.offset;
        let end_of = |n: u64| {
            if n + 1 == count {
                u64::MAX
            } else if n == 0 {
                every.max(first + 1)
            } else {
                (n + 1) * every
            }
        };
        let mut parts = vec![Part {
            input: Input {
                wanted: end_of(0) - first,
                ..input
            },
            start: Start {
                end: end_of(0),
                ..start
            },
            known: known.clone(),
        }];
        for n in 1..count {
            // From the byte before: if it is a line end, a record begins with the range.
            let from = (n * every - 1).max(first);
            parts.push(Part {
                input: Input {
                    read: Box::new(At {
                        file: file.clone(),
                        offset: from,
                    }),
                    fill: true,
                    wanted: end_of(n).saturating_sub(from),
                    path: path.clone(),
                    gzip: None,
                    file: Some(file.clone()),
                    skip: 0,
                },
                start: Start {
                    offset: from,
                    line: None,
                    skip: true,
                    end: end_of(n),
                },
                known: known.clone(),
            });
        }
        parts
    }
}

/// Reads a shared file from a place of its own.
struct At {
    file: Arc<File>,
    offset: u64,
}

impl Read for At {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        #[cfg(unix)]
        let n = std::os::unix::fs::FileExt::read_at(&*self.file, buf, self.offset)?;
        #[cfg(windows)]
        let n = std::os::windows::fs::FileExt::seek_read(&*self.file, buf, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}

/// A file shared with [`At`], read in order.
struct InOrder(Arc<File>);

impl Read for InOrder {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buf)
    }
}

/// Whether a file that is to be opened later is a regular one; an error if it is not there, or is a folder.
pub(super) fn look(path: &Path) -> Result<bool, String> {
    let name = path.display();
    let meta = std::fs::metadata(path).map_err(|e| format!("{name}: {}", reason(&e, false)))?;
    if meta.is_dir() {
        return Err(folder(path));
    }
    Ok(meta.is_file())
}

fn folder(path: &Path) -> String {
    format!("{} is a folder; name the files in it", path.display())
}

/// Opens a file, reads its head and gives `format` its header.
pub(super) fn open<T, F: Format<T>>(
    path: &Path,
    format: &mut F,
    split: bool,
) -> Result<Opened, String> {
    let name = path.display().to_string();
    let say = |e: io::Error| format!("{name}: {}", reason(&e, false));
    let file = File::open(path).map_err(say)?;
    let meta = file.metadata().map_err(say)?;
    if meta.is_dir() {
        return Err(folder(path));
    }
    let regular = meta.is_file();
    let file = Arc::new(file);
    let mut read: Box<dyn Read + Send> = Box::new(InOrder(file.clone()));
    let magic = head(&mut read, 2).map_err(say)?;
    let gzip = magic == MAGIC;
    let named_gzip = path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("gz"));
    if named_gzip && !gzip {
        return Err(format!(
            "{name} is named .gz and is not gzip: {}; compress it again, or give it another name",
            match &magic[..] {
                [] => "it is empty".into(),
                m => format!("it begins with {m:02x?}, not [1f, 8b]"),
            }
        ));
    }
    read = Box::new(Cursor::new(magic).chain(read));
    let mut tail = None;
    if gzip {
        let members = Members::new(read);
        tail = Some(members.tail());
        read = Box::new(members);
    }
    let say = |e: io::Error| format!("{name}: {}", reason(&e, gzip));
    let mut begun = head(&mut read, 3).map_err(say)?;
    let mut known = None;
    if regular {
        // What is wrong further on is told when its turn comes.
        let failed = read_on(&mut read, &mut begun, KNOWN_BY).err();
        read = Box::new(Failing(failed).chain(read));
        known = Some(Head::of(&begun));
    }
    if begun.starts_with(&[0xff, 0xfe]) || begun.starts_with(&[0xfe, 0xff]) {
        return Err(format!(
            "{name} is UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)"
        ));
    }
    let mark = if begun.starts_with(&[0xef, 0xbb, 0xbf]) {
        3
    } else {
        0
    };
    begun.drain(..mark);
    let mut start = Start {
        offset: mark as u64,
        ..Start::default()
    };
    if format.has_header() {
        start = header(&mut begun, &mut read, gzip, format, split, start)
            .map_err(|what| format!("{name}: {what}"))?;
    }
    let kind = match regular && !gzip {
        true => Kind::Plain { bytes: meta.len() },
        false => Kind::Stream,
    };
    Ok(Opened {
        kind,
        input: Input {
            read: Box::new(Cursor::new(begun).chain(read)),
            fill: regular,
            wanted: u64::MAX,
            path: name,
            gzip: tail,
            file: (regular && !gzip).then(|| file.clone()),
            skip: 0,
        },
        file,
        start,
        known,
    })
}

/// Reads the first line that is not empty into `format` and leaves what follows in `begun`; where that begins.
fn header<T, F: Format<T>>(
    begun: &mut Vec<u8>,
    read: &mut Box<dyn Read + Send>,
    gzip: bool,
    format: &mut F,
    split: bool,
    start: Start,
) -> Result<Start, String> {
    let mut more = vec![0; 8 << 10];
    let mut ended = false;
    loop {
        let quotes = format.quotes().filter(|_| !split);
        let mut framer = Framer::new(quotes, HEADER_MAX, start);
        let mut at = 0;
        while let Some(line) = framer.next(begun, &mut at) {
            if line.bad.is_some() {
                return Err(format!("the header is longer than {HEADER_MAX} bytes"));
            }
            if format.is_blank(line.bytes) {
                continue;
            }
            format
                .header(line.bytes)
                .map_err(|e| format!("the header: {e}"))?;
            let start = framer.place();
            begun.drain(..at);
            return Ok(start);
        }
        if ended {
            // No line end: the header is all there is, or there is nothing.
            if let Some(line) = framer.finish() {
                if line.bad.is_some() {
                    return Err("the header: a quoted field is not closed".into());
                }
                if !format.is_blank(line.bytes) {
                    format
                        .header(line.bytes)
                        .map_err(|e| format!("the header: {e}"))?;
                }
            }
            begun.clear();
            return Ok(framer.place());
        }
        let n = read_some(read, &mut more).map_err(|e| reason(&e, gzip))?;
        ended = n == 0;
        begun.extend_from_slice(&more[..n]);
    }
}

/// The first `n` bytes, fewer only if there are no more.
fn head(read: &mut impl Read, n: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    read_on(read, &mut bytes, n)?;
    Ok(bytes)
}

/// Reads on until there are `n` bytes or no more. What was read before an error is there.
fn read_on(read: &mut impl Read, bytes: &mut Vec<u8>, n: usize) -> io::Result<()> {
    let mut have = bytes.len();
    bytes.resize(n.max(have), 0);
    let result = loop {
        if have >= n {
            break Ok(());
        }
        match read_some(read, &mut bytes[have..]) {
            Ok(0) => break Ok(()),
            Ok(m) => have += m,
            Err(e) => break Err(e),
        }
    };
    bytes.truncate(have);
    result
}

/// An error that was met ahead of its turn.
struct Failing(Option<io::Error>);

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// Reads what is there; waits only if nothing is.
pub(super) fn read_some(read: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match read.read(into) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// What happened and what to do.
pub(super) fn reason(e: &io::Error, gzip: bool) -> String {
    match e.kind() {
        ErrorKind::NotFound => "there is no such file; check the path".into(),
        ErrorKind::PermissionDenied => {
            "it may not be read; check its permissions and its folder's".into()
        }
        ErrorKind::UnexpectedEof if gzip => {
            "the gzip data break off: the file is cut short; fetch it again".into()
        }
        ErrorKind::InvalidInput | ErrorKind::InvalidData if gzip => {
            format!("damaged gzip data ({e}); check it with gzip -t, or fetch it again")
        }
        _ => format!("reading failed: {e}"),
    }
}
