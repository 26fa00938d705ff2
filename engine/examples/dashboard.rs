//! A live dashboard: views and visitors of each page in windows of ten seconds, told every second while a window is open and finally when it
//! is over. A view that comes up to a minute late still counts, and its window is told anew.
//!
//! `cargo run --release -p pelton --example dashboard`

use pelton::sink::Sink;
use pelton::source::Source;
use pelton::{Config, EventTime, Job, Span, Spans, Tumbling, Watermarks, Windowed, sink, sources};

/// A view of a page.
#[derive(Clone, Debug)]
pub struct View {
    /// Which.
    pub page: u32,
    /// By whom.
    pub visitor: u64,
    /// When.
    pub at: EventTime,
}

/// Views and visitors of a page in a window.
pub type Count = Windowed<u32, (u64, u64)>;

/// The job. Its results replace one another, so `board` is a sink that takes updates: what counts is the last of each page and window.
pub fn write(job: &Job, views: impl Source<Item = View>, board: impl Sink<Count>) {
    let windows = Tumbling::of(10.seconds())
        .early_firing(1.seconds())
        .allowed_lateness(1.minutes());
    job.source(views)
        .event_time(|v| v.at, Watermarks::bounded(2.seconds()))
        .key_by(|v| v.page)
        .window(windows)
        .uid("pages")
        .aggregate(|a| (a.count(), a.count_distinct(|v| v.visitor)))
        .sink(board);
}

fn view(id: u64) -> View {
    View {
        page: (id * id % 7) as u32,
        visitor: id % 50,
        at: EventTime::from_micros(0) + Span::from_micros(id as i64 * 1_000),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let job = Job::new("dashboard");
    let board = sink::callback("board", |count: Count, _| {
        let (views, visitors) = count.value;
        println!(
            "{} page {}: {views} views by {visitors} ({:?})",
            count.window.start, count.key, count.firing
        );
    });
    // Ten times as fast as they happened, so that something is told early.
    let views = sources::paced(sources::generate("views", 30_000, 1, view), 10_000);
    write(&job, views, board.updates());
    job.run(Config::default().shards(1))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton::Firing;
    use pelton::testing::{self, Stepper};

    #[test]
    fn early_then_final_then_corrected() {
        let (feed, source) = testing::feed(1);
        let (counts, sink) = testing::collect();
        let job = Job::new("dashboard");
        write(&job, source, sink);
        let mut stepper = Stepper::new(&job, 2).unwrap();
        let view = |page, visitor, second| {
            let at = EventTime::from_seconds(second);
            feed.push(0, View { page, visitor, at });
        };
        let told = || -> Vec<_> {
            let counts: Vec<Count> = counts.take();
            counts.iter().map(|c| (c.key, c.value, c.firing)).collect()
        };
        view(1, 7, 11);
        view(1, 7, 12);
        stepper.until_idle().unwrap();
        assert_eq!(told(), []);
        stepper.advance_clock(1.seconds());
        stepper.until_idle().unwrap();
        assert_eq!(told(), [(1, (2, 1), Firing::Early)]);
        view(1, 8, 13);
        view(2, 7, 30);
        stepper.until_idle().unwrap();
        assert_eq!(told(), [(1, (3, 2), Firing::OnTime)]);
        view(1, 9, 14);
        stepper.until_idle().unwrap();
        let late = told();
        assert_eq!(late.len(), 1);
        assert_eq!((late[0].0, late[0].1), (1, (4, 3)));
    }
}
