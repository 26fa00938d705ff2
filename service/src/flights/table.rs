//! The table for a person.

use super::record::Row;
use std::io::{self, BufWriter, Write};

/// Prints all rows, or the `most` busiest.
pub fn print(rows: &[Row], most: Option<usize>) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let shown: Vec<&Row> = match most.filter(|m| *m < rows.len()) {
        None => rows.iter().collect(),
        Some(most) => {
            let mut all: Vec<&Row> = rows.iter().collect();
            all.sort_by_key(|r| std::cmp::Reverse(r.departures + r.cancelled));
            all.truncate(most);
            all.sort_by_key(|r| (r.hour, r.origin, r.carrier));
            all
        }
    };
    writeln!(
        out,
        "{:<16}  {:<6}  {:<7}  {:>10}  {:>9}  {:>10}  {:>11}",
        "hour (UTC)", "origin", "carrier", "departures", "cancelled", "mean delay", "worst delay"
    )?;
    for row in &shown {
        let hour = row.hour.to_string();
        let mean = row
            .mean_delay_min
            .map_or_else(|| "-".into(), |m| format!("{m:.1} min"));
        let worst = row
            .worst_delay_min
            .map_or_else(|| "-".into(), |w| format!("{w} min"));
        writeln!(
            out,
            "{:<16}  {:<6}  {:<7}  {:>10}  {:>9}  {:>10}  {:>11}",
            hour.get(..16).unwrap_or(&hour).replace('T', " "),
            row.origin.as_str(),
            row.carrier.as_str(),
            row.departures,
            row.cancelled,
            mean,
            worst
        )?;
    }
    if shown.len() < rows.len() {
        writeln!(
            out,
            "the {} busiest of {} rows; --all prints every one",
            shown.len(),
            grouped(rows.len() as u64)
        )?;
    }
    out.flush()
}

/// `1,234,567`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_are_set_apart() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1234567, "1,234,567"),
        ] {
            assert_eq!(grouped(n), text);
        }
    }
}
