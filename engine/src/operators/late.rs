//! The late output: records too late for every window they belong to.

use crate::batch::Stamp;
use crate::error::BuildError;
use crate::pipeline::Terminal;
use crate::plan::ShardBuild;
use crate::push::{Control, Cx, OpId, Push};
use crate::sink::Sink;
use crate::terminal::ToSink;

/// One shard's late output.
pub(crate) type LateLink<T> = Box<dyn Push<T> + Send>;

type Open<T> = Box<dyn FnMut(&mut ShardBuild<'_, '_>) -> Result<LateLink<T>, BuildError> + Send>;

/// Where late records go, as written; opened once a shard.
#[allow(missing_debug_implementations)]
pub struct LateTo<T>(Open<T>);

impl<T: 'static> LateTo<T> {
    pub(crate) fn sink<S: Sink<T>>(sink: S, op: OpId) -> Self {
        let mut terminal = ToSink {
            sink,
            op,
            aside: true,
            writers: None,
        };
        LateTo(Box::new(move |build| {
            Ok(Box::new(terminal.open(build)?) as LateLink<T>)
        }))
    }

    pub(crate) fn open(
        late: &mut Option<LateTo<T>>,
        build: &mut ShardBuild<'_, '_>,
    ) -> Result<Late<T>, BuildError> {
        Ok(Late {
            link: late.as_mut().map(|l| (l.0)(build)).transpose()?,
        })
    }
}

/// The late records of an operator on one shard: counted, and sent on where an output is set.
pub(crate) struct Late<T> {
    link: Option<LateLink<T>>,
}

impl<T> Late<T> {
    /// A record is too late for everything.
    #[cold]
    pub fn record(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        cx.counters.late += 1;
        if let Some(link) = &mut self.link {
            link.push(record, stamp, cx);
        }
    }
}

impl<T> Late<T> {
    pub fn control(&mut self, event: Control, cx: &mut Cx) {
        if let Some(link) = &mut self.link {
            link.control(event, cx);
        }
    }

    pub fn blocked(&self) -> bool {
        self.link.as_ref().is_some_and(|l| l.blocked())
    }
}
