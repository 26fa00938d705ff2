//! The pitfalls that the builder warns of: each is told with its code and place, and what mends it is not.

use pelton::join::Between;
use pelton::process::{Ttl, value};
use pelton::sink::{Transactions, callback, transactional};
use pelton::testing::{self, Stepper};
use pelton::{
    Checkpointing, Epoch, EventTime, Job, Much, Pitfall, ProcessingTime, Spans, Tumbling, Warning,
    Watermarks, sources,
};

/// The warnings of one kind of a job that `write` writes.
fn told(pitfall: Pitfall, write: impl FnOnce(&Job)) -> Vec<Warning> {
    let job = Job::new("job");
    write(&job);
    let explained = job.explain();
    let all = job.warnings();
    for warning in &all {
        assert!(explained.contains(&warning.to_string()), "{explained}");
    }
    all.into_iter().filter(|w| w.pitfall == pitfall).collect()
}

/// It is told once, of this operator, in this file, with its code and what to do.
fn once(pitfall: Pitfall, operator: &str, write: impl FnOnce(&Job)) -> Warning {
    let told = told(pitfall, write);
    let [warning] = &told[..] else {
        panic!("{pitfall:?} once: {told:?}");
    };
    assert!(warning.operator.starts_with(operator), "{warning}");
    assert!(warning.operator.contains("pitfalls.rs:"), "{warning}");
    let text = warning.to_string();
    assert!(
        text.starts_with(&format!("[{}] ", pitfall.code())),
        "{text}"
    );
    assert!(text.ends_with(pitfall.advice()), "{text}");
    warning.clone()
}

fn never(pitfall: Pitfall, write: impl FnOnce(&Job)) {
    assert_eq!(told(pitfall, write), []);
}

type Event = (u8, i64);

fn time(event: &Event) -> EventTime {
    EventTime::from_seconds(event.1)
}

#[test]
fn codes_stay() {
    let codes = Pitfall::ALL.map(Pitfall::code);
    let expected = [
        "PLT-0201", "PLT-0202", "PLT-0203", "PLT-0204", "PLT-0205", "PLT-0206", "PLT-0207",
    ];
    assert_eq!(codes, expected);
}

#[test]
fn what_may_fall_silent_wants_a_time_out() {
    let windows = |strategy: Watermarks<_>| {
        move |job: &Job| {
            let (_, source) = testing::feed::<Event>(2);
            job.source(source)
                .event_time(time, strategy)
                .key_by(|e| e.0)
                .window(Tumbling::of(1.seconds()))
                .aggregate(|a| a.count())
                .sink(testing::collect().1);
        }
    };
    let plain = Watermarks::monotonous();
    once(Pitfall::Silence, "event_time", windows(plain));
    never(Pitfall::Silence, windows(plain.idle_after(1.seconds())));
    never(
        Pitfall::Silence,
        windows(plain.close_after_idle(1.seconds())),
    );
    // One of two that meet, told once although two windows wait for it.
    let two = |mends: bool| {
        move |job: &Job| {
            let (_, source) = testing::feed::<Event>(1);
            let bounded = job.source(sources::items([(1u8, 1i64)]));
            let strategy = match mends {
                false => Watermarks::monotonous(),
                true => Watermarks::monotonous().idle_after(1.seconds()),
            };
            let open = job.source(source).event_time(time, strategy);
            let [one, two] = bounded
                .event_time(time, Watermarks::monotonous())
                .union(open)
                .fork();
            for stream in [one, two] {
                stream
                    .key_by(|e| e.0)
                    .window(Tumbling::of(1.seconds()))
                    .aggregate(|a| a.count())
                    .sink(testing::collect().1);
            }
        }
    };
    once(Pitfall::Silence, "event_time", two(false));
    never(Pitfall::Silence, two(true));
    // Timers and times to live wait for it as well.
    once(Pitfall::Silence, "event_time", |job| {
        let (_, source) = testing::feed::<Event>(1);
        job.source(source)
            .event_time(time, Watermarks::monotonous())
            .key_by(|e| e.0)
            .process("p", value::<i64>("v").ttl(Ttl::event_time(1.seconds())))
            .each(|_, _, cx| cx.emit(()))
            .sink(testing::collect().1);
    });
    // What ends does not fall silent, and where nothing waits silence does no harm.
    never(Pitfall::Silence, |job| {
        job.source(sources::items([(1u8, 1i64)]))
            .event_time(time, plain)
            .key_by(|e| e.0)
            .window(Tumbling::of(1.seconds()))
            .aggregate(|a| a.count())
            .sink(testing::collect().1);
        let (_, source) = testing::feed::<Event>(1);
        job.source(source)
            .event_time(time, plain)
            .sink(testing::collect().1);
    });
}

/// No watermark at all where one is waited for is not let through.
#[test]
fn no_event_time_is_refused() {
    let job = Job::new("job");
    job.source(sources::items([(1u8, 1i64)]))
        .key_by(|e| e.0)
        .window(Tumbling::of(1.seconds()))
        .aggregate(|a| a.count())
        .sink(testing::collect().1);
    assert_eq!(Stepper::new(&job, 1).unwrap_err().code(), "PLT-0006");
}

/// Takes transactions, and does nothing with them.
#[derive(Clone)]
struct Nothing;

impl Transactions<Event> for Nothing {
    fn begin(&mut self) -> Result<(), String> {
        Ok(())
    }
    fn batch(&mut self, _: &mut Vec<Event>) -> Result<(), String> {
        Ok(())
    }
    fn pre_commit(&mut self, _: Epoch) -> Result<Vec<u8>, String> {
        Ok(vec![])
    }
    fn commit(&mut self, _: Epoch, _: &[u8]) -> Result<(), pelton::sink::CommitError> {
        Ok(())
    }
    fn recover(&mut self, _: Option<Epoch>) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn exactly_once_wants_checkpoints_and_a_sink_of_two_phases() {
    use Pitfall::{ExactlyOnceWithoutCheckpoints, SinkRepeats};
    let job = |checkpoints: bool, two_phases: bool| {
        move |job: &Job| {
            if checkpoints {
                job.checkpoints(Checkpointing::in_folder("anywhere"));
            }
            let stream = job.source(sources::items([(1u8, 1i64)]));
            match two_phases {
                true => stream.sink(transactional("two phases", Nothing)),
                false => stream.sink(callback("one phase", |_, _| {})),
            }
        }
    };
    once(ExactlyOnceWithoutCheckpoints, "sink", job(false, true));
    never(ExactlyOnceWithoutCheckpoints, job(true, true));
    never(ExactlyOnceWithoutCheckpoints, job(false, false));
    once(SinkRepeats, "sink", job(true, false));
    never(SinkRepeats, job(true, true));
    never(SinkRepeats, job(false, false));
    // Outputs for what falls aside are sinks too.
    let aside = |two_phases: bool| {
        move |job: &Job| {
            job.checkpoints(Checkpointing::in_folder("anywhere"));
            let windows = job
                .source(sources::items([(1u8, 1i64)]))
                .event_time(time, Watermarks::monotonous())
                .key_by(|e| e.0)
                .window(Tumbling::of(1.seconds()));
            let windows = match two_phases {
                true => windows.late_to(transactional("two phases", Nothing)),
                false => windows.late_to(callback("one phase", |_, _| {})),
            };
            let counts = windows.aggregate(|a| a.count());
            let events = counts.map(|w| (w.key, 0));
            events.sink(transactional("two phases", Nothing));
        }
    };
    once(SinkRepeats, "late output", aside(false));
    never(SinkRepeats, aside(true));
    once(SinkRepeats, "dead letters", |job| {
        job.checkpoints(Checkpointing::in_folder("anywhere"));
        job.dead_letters_to(callback("one phase", |_, _| {}));
    });
}

#[test]
fn state_wants_an_end() {
    let process = |job: &Job, ttl: Option<Ttl>, few: bool| {
        let mut state = value::<i64>("last");
        if let Some(ttl) = ttl {
            state = state.ttl(ttl);
        }
        let process = job
            .source(sources::items([(1u8, 1i64)]))
            .event_time(time, Watermarks::monotonous())
            .key_by(|e| e.0)
            .process::<_, ()>("last", state);
        let process = match few {
            true => process.states_stay_few(),
            false => process,
        };
        process
            .each(|e, last, _| last.set(e.1))
            .sink(testing::collect().1);
    };
    let warning = once(Pitfall::StateGrows, "process 'last'", |job| {
        process(job, None, false);
    });
    assert!(warning.what.contains("'last'"), "{warning}");
    let hour = Ttl::event_time(1.hours());
    never(Pitfall::StateGrows, |job| process(job, Some(hour), false));
    never(Pitfall::StateGrows, |job| process(job, None, true));
    // A timer is there to clear.
    never(Pitfall::StateGrows, |job| {
        job.source(sources::items([(1u8, 1i64)]))
            .event_time(time, Watermarks::monotonous())
            .key_by(|e| e.0)
            .process::<_, ()>("last", value::<i64>("last"))
            .on_timer(|_, last, _| last.clear())
            .each(|e, last, cx| {
                last.set(e.1);
                cx.timer_at(cx.time() + 1.hours());
            })
            .sink(testing::collect().1);
    });
    let as_of = |job: &Job, lives: Option<Ttl>| {
        let [left, right] = [0, 1].map(|_| {
            job.source(sources::items([(1u8, 1i64)]))
                .event_time(time, Watermarks::monotonous())
                .key_by(|e| e.0)
        });
        let mut join = left.as_of_join(right);
        if let Some(lives) = lives {
            join = join.versions_live(lives);
        }
        join.inner(|l, r| l.1 - r.1).sink(testing::collect().1);
    };
    once(Pitfall::StateGrows, "as_of_join", |job| as_of(job, None));
    never(Pitfall::StateGrows, |job| as_of(job, Some(hour)));
    once(Pitfall::StateGrows, "reduce", |job| {
        job.source(sources::items([1u64]))
            .key_by(|n| *n)
            .reduce(|a, b| *a += b)
            .sink(testing::collect().1);
    });
}

#[test]
fn a_sum_of_what_the_clock_decides() {
    let limited = |by_clock: bool| {
        move |job: &Job| {
            let process = job
                .source(sources::items([(1u8, 1i64)]))
                .event_time(time, Watermarks::monotonous())
                .key_by(|e| e.0)
                .process("p", ());
            let process = match by_clock {
                true => process.by_clock(),
                false => process,
            };
            process
                .each(|e: &Event, (), cx| cx.emit(*e))
                .key_by(|e| e.0)
                .window(Tumbling::of(1.seconds()))
                .aggregate(|a| a.sum(|e| e.1))
                .sink(testing::collect().1);
        }
    };
    let warning = once(Pitfall::ProcessingTime, "window", limited(true));
    assert!(warning.what.contains("process 'p'"), "{warning}");
    never(Pitfall::ProcessingTime, limited(false));
    // The window by the clock itself, and the sum behind it.
    let told = told(Pitfall::ProcessingTime, |job| {
        job.source(sources::items([(1u8, 1i64)]))
            .key_by(|e| e.0)
            .window(ProcessingTime::tumbling(1.seconds()))
            .aggregate(|a| a.count())
            .key_by(|w| w.key)
            .running(|a| a.sum(|w| w.value))
            .sink(testing::collect().1);
    });
    let operators: Vec<_> = told.iter().map(|w| &w.operator[..7]).collect();
    assert_eq!(operators, ["window ", "running"]);
}

#[test]
fn a_source_with_fewer_partitions_than_shards() {
    let job = |partitions: usize, shards: usize| {
        let (_, source) = testing::feed::<Event>(partitions);
        let job = Job::new("job");
        job.source(source).sink(testing::collect().1);
        let stepper = Stepper::new(&job, shards).unwrap();
        stepper.warnings().to_vec()
    };
    let told = job(3, 4);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].pitfall, Pitfall::FewPartitions);
    assert!(told[0].operator.starts_with("source"), "{told:?}");
    assert!(
        told[0].what.contains("3 partitions for 4 shards"),
        "{told:?}"
    );
    assert_eq!(job(4, 4), []);
    assert_eq!(job(1, 1), []);
}

#[test]
fn a_join_of_wide_records() {
    type Row = (u8, i64, [u64; 64]);
    fn joined<T: pelton::State + Clone>(job: &Job, row: T, key: fn(&T) -> u8, at: fn(&T) -> i64) {
        let [left, right] = [0, 1].map(|_| {
            job.source(sources::items([row.clone()]))
                .event_time(
                    move |r| EventTime::from_seconds(at(r)),
                    Watermarks::monotonous(),
                )
                .key_by(key)
        });
        left.interval_join(right, Between::of(0.seconds(), 1.seconds()))
            .inner(|_, _| ())
            .sink(testing::collect().1);
    }
    let warning = once(Pitfall::WideJoin, "interval_join", |job| {
        joined::<Row>(job, (1, 1, [0; 64]), |r| r.0, |r| r.1);
    });
    assert!(warning.what.contains("of 528 bytes"), "{warning}");
    never(Pitfall::WideJoin, |job| {
        joined::<Event>(job, (1, 1), |r| r.0, |r| r.1);
    });
    let row = |_| (1u8, 1i64, [0u64; 64]);
    let keyed = |job: &Job| {
        let [left, right] = [0, 1].map(|_| {
            job.source(sources::items([(1u8, 1i64)]))
                .event_time(time, Watermarks::monotonous())
        });
        (left.key_by(|e| e.0), right)
    };
    once(Pitfall::WideJoin, "as_of_join", |job| {
        let (left, right) = keyed(job);
        left.as_of_join(right.map(row).key_by(|r| r.0))
            .inner(|_, _| ())
            .sink(testing::collect().1);
    });
    once(Pitfall::WideJoin, "window", |job| {
        let (left, right) = keyed(job);
        left.window_join(right.map(row).key_by(|r| r.0), Tumbling::of(1.seconds()))
            .inner(|_, _| ())
            .sink(testing::collect().1);
    });
    once(Pitfall::WideJoin, "broadcast_join", |job| {
        let (left, right) = keyed(job);
        left.exchange()
            .broadcast_join(right.map(row).key_by(|r| r.0), |e| e.0)
            .inner(|_, _| ())
            .sink(testing::collect().1);
    });
    // The stream of a broadcast join is not kept, however wide.
    never(Pitfall::WideJoin, |job| {
        let (left, right) = keyed(job);
        right
            .map(row)
            .broadcast_join(left, |r| r.0)
            .inner(|_, _| ())
            .sink(testing::collect().1);
    });
}

/// Nearly all records are of one key: its shard is told, with its state; evenly spread keys are not.
#[test]
fn keys_skewed_to_one_shard_are_reported() {
    let run = |key: fn(u64) -> u64| {
        let job = Job::new("job");
        job.source(sources::generate("n", 20_000, 4, |n| n))
            .key_by(move |n| key(*n))
            .fold([0u64; 64], |acc, n| acc[0] += n)
            .sink(testing::collect().1);
        let mut stepper = Stepper::new(&job, 4).unwrap();
        stepper.run().unwrap();
        let shares = stepper.shares();
        assert_eq!(shares.len(), 1, "the source is behind no exchange");
        let records: u64 = shares[0].shards.iter().map(|s| s.records).sum();
        assert_eq!(records, 20_000);
        let bytes = stepper.state_sizes().iter().map(|s| s.bytes).sum::<u64>();
        let shared: u64 = shares[0].shards.iter().map(|s| s.state_bytes).sum();
        assert_eq!(bytes, shared);
        shares[0].skews()
    };
    let skews = run(|n| if n % 10 == 0 { n } else { 7 });
    assert_eq!(skews.len(), 1, "{skews:?}");
    assert_eq!(skews[0].much, Much::Records);
    assert!(skews[0].has > 18_000 && skews[0].all == 20_000);
    assert!(skews[0].stage.starts_with("fold at"), "{skews:?}");
    assert_eq!(run(|n| n), []);
}
