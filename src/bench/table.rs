//! The results as tables, in Markdown that is also easy to read as it is.

use std::fmt::Write as _;

use super::cases::Metric;
use super::report::{Outcome, Report};
use super::stats::{Summary, short};

/// One table per MTU, then what has failed and what is missing.
pub fn markdown(report: &Report) -> String {
    let mut text = String::new();
    for &mtu in &report.settings.mtus {
        let [machine, settings] = report.circumstances(mtu);
        let _ = write!(text, "### {machine}\n\n{settings}\n\n");
        text += &render(&rows(report, mtu));
        text.push('\n');
    }
    text += &notes(report);
    text
}

/// The head and the lines of one MTU's table.
fn rows(report: &Report, mtu: u16) -> Vec<Vec<String>> {
    let labels: Vec<&str> = report.present().map(|b| b.label.as_str()).collect();
    let mut head = vec!["median (min-max)".to_owned()];
    head.extend(labels.iter().map(|&label| label.to_owned()));
    let mut rows = vec![head];
    for info in &report.cases {
        let case = info.name;
        let results: Vec<Option<&Outcome>> = labels
            .iter()
            .map(|label| report.outcome(case, mtu, label))
            .collect();
        let mut row = vec![format!("{case}, {}", info.metric.unit)];
        row.extend(results.iter().map(|result| cell(*result, info.metric)));
        rows.push(row);
        rows.extend(
            case.details()
                .iter()
                .filter_map(|&(metric, words)| detail(&results, metric, words)),
        );
    }
    rows
}

/// Median and spread, or that there is none.
fn cell(result: Option<&Outcome>, metric: Metric) -> String {
    let Some(result) = result else {
        return "-".to_owned();
    };
    let figure = result.figure(metric);
    match (figure, result.failures) {
        (Some(figure), 0) => spread(&figure),
        (Some(figure), failures) => format!("{}, {failures} failed", spread(&figure)),
        (None, 0) => "-".to_owned(),
        (None, _) => "failed".to_owned(),
    }
}

fn spread(figure: &Summary) -> String {
    let median = short(figure.median);
    if figure.n < 2 {
        return median;
    }
    format!("{median} ({}-{})", short(figure.min), short(figure.max))
}

/// A line of medians; none where no backend has the figure.
fn detail(results: &[Option<&Outcome>], metric: Metric, words: &str) -> Option<Vec<String>> {
    let figures: Vec<_> = results
        .iter()
        .map(|result| result.and_then(|result| result.figure(metric)))
        .collect();
    figures.iter().flatten().next()?;
    let mut row = vec![format!("· {words}")];
    row.extend(
        figures
            .iter()
            .map(|figure| figure.map_or_else(|| "-".to_owned(), |figure| short(figure.median))),
    );
    Some(row)
}

/// Lines of cells with columns of equal width; the first is the head.
pub(super) fn render(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a String cannot fail.
            let _ = if column == 0 {
                write!(text, "| {cell:<width$} ")
            } else {
                write!(text, "| {cell:>width$} ")
            };
        }
        text += "|\n";
        if number == 0 {
            for (column, &width) in widths.iter().enumerate() {
                let dashes = "-".repeat(width + 1);
                text += &if column == 0 {
                    format!("|:{dashes}")
                } else {
                    format!("|{dashes}:")
                };
            }
            text += "|\n";
        }
    }
    text
}

/// Why cells are empty.
fn notes(report: &Report) -> String {
    let mut text = String::new();
    let note = |text: &mut String, words: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "- {words}");
    };
    for result in report.results.iter().filter(|result| result.failures > 0) {
        let Outcome {
            case,
            mtu,
            backend,
            failures,
            error,
            ..
        } = result;
        let reason = error.as_deref().unwrap_or("no reason given");
        // It may be what another program printed.
        let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
        note(
            &mut text,
            format_args!("{backend}, {case}, MTU {mtu}: {failures} failed: {reason}"),
        );
    }
    for backend in report.backends.iter().filter(|backend| backend.missing) {
        note(&mut text, format_args!("{}: not installed", backend.label));
    }
    for backend in report.present() {
        if let Some(version) = &backend.version {
            note(
                &mut text,
                format_args!("{}: version {version}", backend.label),
            );
        }
    }
    if !report.complete {
        note(
            &mut text,
            format_args!("ended early: not all samples were taken"),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cases::Case;
    use crate::bench::testing::{report, sample};

    #[test]
    fn cells_have_median_and_spread_or_say_what_is_wrong() {
        let samples = [
            sample(Case::TcpUp(1), "native", 1, Ok(40.0)),
            sample(Case::TcpUp(1), "native", 2, Ok(30.0)),
            sample(Case::TcpUp(1), "pasta", 1, Ok(9.5)),
            sample(Case::TcpUp(1), "pasta", 2, Err("no luck")),
            sample(Case::TcpRr, "pasta", 1, Err("a | broken\npipe")),
        ];
        let text = markdown(&report(
            &["native", "pasta"],
            &[Case::TcpUp(1), Case::TcpRr],
            &samples,
        ));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines.get(4..8).unwrap(),
            [
                "| median (min-max) |           native |          pasta |",
                "|:-----------------|-----------------:|---------------:|",
                "| tcp_up_1, Gbit/s | 35.0 (30.0-40.0) | 9.50, 1 failed |",
                "| tcp_rr, /s       |                - |         failed |",
            ],
            "{text}"
        );
        assert!(
            text.contains("\n- pasta, tcp_up_1, MTU 1500: 1 failed: no luck\n"),
            "{text}"
        );
        assert!(text.ends_with("1 failed: a | broken pipe\n"), "{text}");
    }
}
