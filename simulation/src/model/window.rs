//! Which windows hold a time, by definition.

use crate::spec::Kind;

/// The windows (start, end) that hold `time`: start <= time < end. Sessions depend on other records and have none here.
pub fn holding(kind: Kind, time: i64) -> Vec<(i64, i64)> {
    match kind {
        Kind::Tumbling { size, offset } => holding(
            Kind::Sliding {
                size,
                slide: size,
                offset,
            },
            time,
        ),
        Kind::Sliding {
            size,
            slide,
            offset,
        } => {
            // The last start at or before the time, then every slide before it while the window still reaches the time.
            let last = floor(time, slide, offset);
            let starts = (0..).map(|n| last - n * slide);
            starts
                .take_while(|start| start + size > time)
                .map(|start| (start, start + size))
                .collect()
        }
        Kind::Cumulate { size, step, offset } => {
            let start = floor(time, size, offset);
            let ends = (1..=size / step).map(|n| start + n * step);
            ends.filter(|end| *end > time)
                .map(|end| (start, end))
                .collect()
        }
        Kind::Session { .. } => vec![],
    }
}

fn floor(time: i64, every: i64, offset: i64) -> i64 {
    (time - offset).div_euclid(every) * every + offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_lie_where_the_definition_says() {
        let sliding = Kind::Sliding {
            size: 10,
            slide: 4,
            offset: 1,
        };
        assert_eq!(holding(sliding, 12), [(9, 19), (5, 15)]);
        assert_eq!(holding(sliding, 13), [(13, 23), (9, 19), (5, 15)]);
        let cumulate = Kind::Cumulate {
            size: 6,
            step: 2,
            offset: 0,
        };
        assert_eq!(holding(cumulate, -4), [(-6, -2), (-6, 0)]);
        let tumbling = Kind::Tumbling {
            size: 10,
            offset: 0,
        };
        assert_eq!(holding(tumbling, -1), [(-10, 0)]);
        assert_eq!(holding(tumbling, 10), [(10, 20)]);
    }
}
