//! A run over time as a picture: an SVG file that needs nothing else.

use std::fmt::Write as _;

use super::Sample;
use super::report::Report;
use crate::bench::chart::{MARGIN, WIDTH, end_text, style, text};
use crate::bench::load::Kind;
use crate::bench::stats::short;

const HEADER: f64 = 100.0;
const PANEL_HEAD: f64 = 10.0;
const PANEL: f64 = 84.0;
const PANEL_GAP: f64 = 36.0;
/// For the scale, left of the plot.
const SCALE: f64 = 52.0;
const FOOTER: f64 = 28.0;
/// Most points of a line: more would be closer than a pixel.
const MOST_POINTS: usize = 800;
const TICKS: u32 = 6;

/// One figure over time.
type Series = (&'static str, Vec<Option<f64>>);

struct Panel {
    title: &'static str,
    unit: &'static str,
    series: Vec<Series>,
}

/// The picture.
pub fn svg(report: &Report) -> String {
    let panels = panels(&report.samples);
    #[allow(clippy::cast_precision_loss, reason = "there are few panels")]
    let height = HEADER + panels.len() as f64 * (PANEL_HEAD + PANEL + PANEL_GAP) + FOOTER;
    let most = panels.iter().map(|panel| panel.series.len()).max();
    let mut out = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"t\">\n\
         <title id=\"t\">crun-lite bench {} over time</title>\n\
         <style>{}</style>\n\
         <rect class=\"ground\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n",
        report.verb,
        style(most.unwrap_or(0) + 1),
        WIDTH - 1.0,
        height - 1.0,
    );
    let title = format!("crun-lite bench {}", report.verb);
    text(&mut out, MARGIN, 38.0, "title", &title);
    text(&mut out, MARGIN, 60.0, "quiet", &report.circumstances());
    text(&mut out, MARGIN, 77.0, "quiet", &report.command);
    let end = report.samples.last().map_or(0.0, |sample| sample.at);
    let times: Vec<f64> = report.samples.iter().map(|sample| sample.at).collect();
    let mut y = HEADER;
    for panel in &panels {
        draw(&mut out, panel, &times, end, y);
        y += PANEL_HEAD + PANEL + PANEL_GAP;
    }
    out += "</svg>\n";
    out
}

fn panels(samples: &[Sample]) -> Vec<Panel> {
    let of = |figure: &dyn Fn(&Sample) -> Option<f64>| samples.iter().map(figure).collect();
    #[allow(
        clippy::cast_precision_loss,
        reason = "counts of one run are far below 2^52"
    )]
    let count = |figure: fn(&Sample) -> u64| of(&|sample| Some(figure(sample) as f64));
    let kinds = [
        Kind::TcpRr,
        Kind::UdpRr,
        Kind::Names,
        Kind::Connections,
        Kind::Flows,
    ];
    let by_kind = |figure: &dyn Fn(&Sample, Kind) -> Option<f64>| -> Vec<Series> {
        kinds
            .into_iter()
            .map(|kind| (kind.name(), of(&|sample| figure(sample, kind))))
            .collect()
    };
    let all = [
        Panel {
            title: "Checked payload",
            unit: "Gbit/s",
            series: vec![
                ("up", of(&|sample| Some(sample.gbit_up))),
                ("down", of(&|sample| Some(sample.gbit_down))),
            ],
        },
        Panel {
            title: "Transactions",
            unit: "per second",
            series: by_kind(&|sample, kind| sample.per_second.get(&kind).copied()),
        },
        Panel {
            title: "Time of a transaction, 99th percentile",
            unit: "us",
            series: by_kind(&|sample, kind| sample.p99_us.get(&kind).copied()),
        },
        Panel {
            title: "Resident memory of crun-lite",
            unit: "MiB",
            series: vec![(
                "RSS",
                of(&|sample| {
                    let kib = u32::try_from(sample.state.rss_kib).ok()?;
                    Some(f64::from(kib) / 1024.0)
                }),
            )],
        },
        Panel {
            title: "Flows and descriptors",
            unit: "",
            series: vec![
                ("flows", count(|sample| sample.state.flows)),
                ("descriptors", count(|sample| sample.state.fds)),
            ],
        },
        Panel {
            title: "CPU time of crun-lite",
            unit: "% of one CPU",
            series: vec![("CPU", of(&|sample| Some(sample.cpu_percent)))],
        },
        Panel {
            title: "Errors so far",
            unit: "",
            series: vec![("errors", count(|sample| sample.errors))],
        },
    ];
    let shown = |mut panel: Panel| {
        panel
            .series
            .retain(|(_, values)| values.iter().any(Option::is_some));
        // Where there are no streams, there is nothing to see of them.
        let empty = panel.unit == "Gbit/s" && highest(&panel) == 0.0;
        (!panel.series.is_empty() && !empty).then_some(panel)
    };
    all.into_iter().filter_map(shown).collect()
}

fn highest(panel: &Panel) -> f64 {
    let values = panel.series.iter().flat_map(|(_, values)| values);
    values.flatten().copied().fold(0.0, f64::max)
}

/// `y` is the base line of the title.
fn draw(out: &mut String, panel: &Panel, times: &[f64], end: f64, y: f64) {
    text(out, MARGIN, y, "panel", panel.title);
    let mut right = WIDTH - MARGIN;
    for (number, (name, _)) in panel.series.iter().enumerate().rev() {
        end_text(out, right, y, "small", name);
        #[allow(clippy::cast_precision_loss, reason = "names are short")]
        let width = name.len() as f64 * 7.0 + 14.0;
        let _ = writeln!(
            out,
            "<rect class=\"b{}\" x=\"{:.1}\" y=\"{:.1}\" width=\"9\" height=\"9\"/>",
            number + 1,
            right - width + 1.0,
            y - 9.0
        );
        right -= width + 10.0;
    }
    let most = highest(panel);
    let (left, width) = (MARGIN + SCALE, WIDTH - 2.0 * MARGIN - SCALE);
    let (top, base) = (y + PANEL_HEAD, y + PANEL_HEAD + PANEL);
    let unit = panel.unit;
    end_text(out, left - 6.0, top + 8.0, "quiet small", &short(most));
    end_text(out, left - 6.0, base, "quiet small", "0");
    text(out, MARGIN, top + 24.0, "quiet small", unit);
    let _ = writeln!(
        out,
        "<path class=\"axis\" fill=\"none\" d=\"M{left} {top}V{base}H{}\"/>",
        left + width
    );
    for tick in 0..=TICKS {
        let share = f64::from(tick) / f64::from(TICKS);
        let label = clock(end * share);
        let x = left + width * share;
        match tick {
            0 => text(out, x, base + 13.0, "quiet small", &label),
            _ => end_text(out, x, base + 13.0, "quiet small", &label),
        }
    }
    for (number, (_, values)) in panel.series.iter().enumerate() {
        let place = |(&at, value): (&f64, f64)| {
            let x = if end > 0.0 { at / end } else { 0.0 };
            let y = if most > 0.0 { value / most } else { 0.0 };
            format!("{:.1},{:.1}", left + width * x, base - PANEL * y)
        };
        let points: Vec<String> = times
            .iter()
            .zip(thinned(values))
            .filter_map(|(at, value)| Some(place((at, value?))))
            .collect();
        let _ = writeln!(
            out,
            "<polyline class=\"l{}\" points=\"{}\"/>",
            number + 1,
            points.join(" ")
        );
    }
}

/// Of neighbours that would be closer than a pixel, the largest is kept.
fn thinned(values: &[Option<f64>]) -> Vec<Option<f64>> {
    let group = values.len().div_ceil(MOST_POINTS).max(1);
    let mut kept = vec![None; values.len()];
    for (number, group_values) in values.chunks(group).enumerate() {
        let largest = group_values.iter().flatten().copied().reduce(f64::max);
        if let Some(place) = kept.get_mut(number * group) {
            *place = largest;
        }
    }
    kept
}

/// Seconds as 45s, 12m30s or 3h20m.
fn clock(seconds: f64) -> String {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a time of a run"
    )]
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        for (seconds, text) in [
            (0.0, "0s"),
            (59.4, "59s"),
            (750.0, "12m30s"),
            (12_000.0, "3h20m"),
        ] {
            assert_eq!(clock(seconds), text);
        }
    }

    #[test]
    fn peaks_survive_thinning() {
        let mut values = vec![Some(1.0); 3 * MOST_POINTS];
        values[1001] = Some(9.0);
        values[2000] = None;
        let thin = thinned(&values);
        assert_eq!(thin.len(), values.len());
        assert!(thin.iter().flatten().count() <= MOST_POINTS);
        assert!(thin.contains(&Some(9.0)));
        assert_eq!(thinned(&[Some(1.0), None]), [Some(1.0), None]);
    }
}
