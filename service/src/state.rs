//! `pelton state`: what a folder of checkpoints, or a savepoint, holds, and whether it is whole.

use crate::{Done, Failure, tell};
use pelton::checkpoint::inspect::{self, Content, Damage, InspectError, Inspection, Verification};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write as _};
use std::path::PathBuf;

/// Look at a folder of checkpoints, or at a savepoint; nothing in it is changed, and no job may run on it meanwhile.
#[derive(clap::Args, Debug)]
#[command(after_help = crate::EXIT_CODES)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Say what it holds: checkpoints, states, source positions, watermarks
    Inspect {
        /// The folder
        folder: PathBuf,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Check every checksum, every frame and each value of the engine's own
    Verify {
        /// The folder
        folder: PathBuf,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
pub fn run(args: &Args) -> Result<Done, Failure> {
    match &args.what {
        What::Inspect { folder, json } => {
            let found = inspect::inspect(folder)?;
            print(match json {
                true => format!("{}\n", inspection_json(&found)),
                false => inspection(&found),
            })?;
            Ok(Done::Over)
        }
        What::Verify { folder, json } => {
            let found = inspect::verify(folder)?;
            print(match json {
                true => format!("{}\n", verification_json(&found)),
                false => verification(&found),
            })?;
            match found.damage.len() {
                0 => Ok(Done::Over),
                1 => Err(Failure::Failed("1 place is damaged".into())),
                n => Err(Failure::Failed(format!("{n} places are damaged"))),
            }
        }
    }
}

impl From<InspectError> for Failure {
    fn from(e: InspectError) -> Self {
        match e.is_damage() {
            true => Failure::Failed(format!(
                "{e}. `pelton state verify` says what else is damaged"
            )),
            false => Failure::Usage(e.to_string()),
        }
    }
}

fn print(text: String) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|e| match e.kind() {
        ErrorKind::BrokenPipe => Failure::ReaderGone,
        _ => Failure::Failed(format!("writing to stdout failed: {e}")),
    })
}

/// For people. Writing to a string does not fail.
fn inspection(found: &Inspection) -> String {
    let mut text = String::new();
    let out = &mut text;
    let _ = writeln!(
        out,
        "lineage {}, started {} times",
        found.lineage, found.starts
    );
    for checkpoint in &found.checkpoints {
        let (epoch, bytes) = (checkpoint.epoch, checkpoint.bytes());
        let _ = writeln!(out, "checkpoint {epoch}: {bytes} bytes in");
        for (name, len) in &checkpoint.segments {
            let _ = writeln!(out, "  {name}  {len:>12}");
        }
    }
    match &found.last {
        None => {
            let _ = writeln!(out, "no checkpoint yet");
        }
        Some(last) => content(last, out),
    }
    for note in &found.notes {
        tell(format_args!("pelton: note: {note}\n"));
    }
    text
}

fn content(last: &Content, out: &mut String) {
    let shards: Vec<String> = last.shards.iter().map(|(_, n)| n.to_string()).collect();
    // A savepoint does not say how many there were: it is read by any number.
    let written = match shards.is_empty() {
        true => String::new(),
        false => format!(", written by {} shards", shards.join(", then ")),
    };
    let (job, groups) = (&last.job, last.key_groups);
    let _ = writeln!(
        out,
        "the last one is of job '{job}': {groups} key groups{written}"
    );
    let _ = writeln!(out, "states");
    for s in &last.states {
        let given = if s.is_uid_given { "" } else { " (not given)" };
        let _ = writeln!(
            out,
            "  {}/{}{given}: {} entries, {} bytes; {} in the files\n    {}\n    {}",
            s.uid, s.name, s.entries, s.bytes, s.written, s.operator, s.shape
        );
    }
    let _ = writeln!(out, "source positions");
    for p in &last.partitions {
        let ended = if p.has_ended { ", ended" } else { "" };
        let _ = writeln!(
            out,
            "  {} {} '{}': at {}{ended}",
            p.source, p.number, p.name, p.position.offset
        );
    }
    let _ = writeln!(out, "watermarks");
    for w in &last.watermarks {
        let of = if w.is_partition { "partition" } else { "shard" };
        let _ = writeln!(out, "  {} {of} {}: {}", w.uid, w.number, w.time);
    }
    for p in &last.prepared {
        let _ = writeln!(
            out,
            "prepared by {} for epoch {}: {} bytes",
            p.uid, p.epoch, p.bytes
        );
    }
}

fn inspection_json(found: &Inspection) -> Value {
    let checkpoints = found.checkpoints.iter().map(|c| {
        let segments = c.segments.iter();
        let segments = segments.map(|(file, bytes)| json!({"file": file, "bytes": bytes}));
        json!({
            "epoch": c.epoch.0,
            "bytes": c.bytes(),
            "segments": segments.collect::<Vec<_>>(),
        })
    });
    json!({
        "lineage": found.lineage,
        "starts": found.starts,
        "checkpoints": checkpoints.collect::<Vec<_>>(),
        "last": found.last.as_ref().map(content_json),
        "notes": found.notes,
    })
}

fn content_json(last: &Content) -> Value {
    let states = last.states.iter().map(|s| {
        json!({
            "uid": s.uid,
            "uid_given": s.is_uid_given,
            "operator": s.operator,
            "name": s.name,
            "shape": s.shape,
            "entries": s.entries,
            "bytes": s.bytes,
            "entries_in_files": s.written,
        })
    });
    let partitions = last.partitions.iter().map(|p| {
        json!({
            "source": p.source,
            "number": p.number,
            "name": p.name,
            "offset": p.position.offset,
            "ended": p.has_ended,
        })
    });
    let watermarks = last.watermarks.iter().map(|w| {
        json!({
            "uid": w.uid,
            "of": if w.is_partition { "partition" } else { "shard" },
            "number": w.number,
            "time": w.time.to_string(),
            "micros": w.time.micros(),
        })
    });
    let prepared = last.prepared.iter();
    let prepared = prepared.map(|p| json!({"uid": p.uid, "epoch": p.epoch.0, "bytes": p.bytes}));
    let shards = last.shards.iter();
    let shards = shards.map(|(start, shards)| json!({"start": start, "shards": shards}));
    json!({
        "job": last.job,
        "key_groups": last.key_groups,
        "shards": shards.collect::<Vec<_>>(),
        "states": states.collect::<Vec<_>>(),
        "partitions": partitions.collect::<Vec<_>>(),
        "watermarks": watermarks.collect::<Vec<_>>(),
        "prepared": prepared.collect::<Vec<_>>(),
    })
}

fn verification(found: &Verification) -> String {
    let mut text = format!(
        "{} checkpoints on {} whole files: {} blocks, {} frames, {} values of the engine's own, {} bytes\n",
        found.checkpoints, found.segments, found.blocks, found.frames, found.archives, found.bytes
    );
    for Damage {
        file, offset, what, ..
    } in &found.damage
    {
        let _ = match file.is_empty() {
            true => writeln!(text, "damaged: {what}"),
            false => writeln!(text, "damaged: {file} at offset {offset}: {what}"),
        };
    }
    for note in &found.notes {
        tell(format_args!("pelton: note: {note}\n"));
    }
    text
}

fn verification_json(found: &Verification) -> Value {
    let damage = found.damage.iter();
    let damage = damage.map(|d| json!({"file": d.file, "offset": d.offset, "what": d.what}));
    json!({
        "whole": found.damage.is_empty(),
        "checkpoints": found.checkpoints,
        "segments": found.segments,
        "blocks": found.blocks,
        "frames": found.frames,
        "values": found.archives,
        "bytes": found.bytes,
        "damage": damage.collect::<Vec<_>>(),
        "notes": found.notes,
    })
}
