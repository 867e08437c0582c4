//! The results of one MTU as a picture: an SVG file that needs nothing else.
//!
//! A panel per figure, a bar per backend, each panel with a scale of its own from
//! zero: units differ, and so does what is large. The bar is the median, the
//! whisker goes from the lowest sample to the highest. The picture has a ground of
//! its own, which follows the reader's preference for light or dark, so that it
//! can be read on any page.

use std::fmt::Write as _;

use super::cases::{self, Case, Metric};
use super::report::{Outcome, Report};
use super::stats::{Summary, short};

pub(super) const WIDTH: f64 = 880.0;
pub(super) const MARGIN: f64 = 28.0;
const GUTTER: f64 = 40.0;
const COLUMNS: usize = 2;
const PANEL: f64 = (WIDTH - 2.0 * MARGIN - GUTTER) / 2.0;
/// For the names of backends, left of the bars.
const NAMES: f64 = 88.0;
/// For the values, right of the longest bar.
const VALUES: f64 = 54.0;
const BARS: f64 = PANEL - NAMES - VALUES;
const BAR_HEIGHT: f64 = 13.0;
const BAR_PITCH: f64 = 19.0;
/// From the top of a panel to its first bar.
const PANEL_HEAD: f64 = 12.0;
const PANEL_GAP: f64 = 28.0;
/// From a section's rule to its first panel.
const SECTION_HEAD: f64 = 44.0;
/// A section's last panels have less below them.
const SECTION_END: f64 = 14.0;
const HEADER: f64 = 96.0;
const FOOTER_LINE: f64 = 17.0;
/// Half the height of a whisker's ends.
const CAP: f64 = 3.0;
/// Longest name that fits.
const LONGEST_NAME: usize = 14;

/// For light and dark ground; blue, orange, purple, green and vermilion can be
/// told apart by the colour-blind (Okabe and Ito). The first is for native.
const COLOURS: [(&str, &str); 7] = [
    ("#9aa1ab", "#7d858f"),
    ("#2583c5", "#3d9be0"),
    ("#e69f00", "#e3a62c"),
    ("#c973a6", "#d28ab5"),
    ("#009e73", "#2bb38d"),
    ("#d55e00", "#e57b34"),
    ("#56b4e9", "#7cc4ee"),
];

const STYLE: &str = "\
text{font-family:ui-sans-serif,system-ui,-apple-system,'Segoe UI','Noto Sans',Helvetica,Arial,\
sans-serif;font-size:12px;fill:#1f2328;font-variant-numeric:tabular-nums}\
.ground{fill:#ffffff;stroke:#d1d9e0}\
.title{font-size:20px;font-weight:600}\
.section{font-size:14px;font-weight:600}\
.panel{font-weight:600}\
.quiet{fill:#59636e}\
.small{font-size:11px}\
.value{font-weight:600}\
.rule{stroke:#d1d9e0}\
.axis{stroke:#9aa1ab}\
.whisker{stroke:#1f2328;stroke-width:1.25;fill:none}\
";
const DARK_STYLE: &str = "\
text{fill:#e6edf3}\
.ground{fill:#0d1117;stroke:#3d444d}\
.quiet{fill:#9198a1}\
.rule{stroke:#3d444d}\
.axis{stroke:#656c76}\
.whisker{stroke:#e6edf3}\
";

/// One figure over all backends.
struct Panel<'a> {
    title: String,
    metric: Metric,
    results: Vec<Option<&'a Outcome>>,
}

/// The chart of one MTU.
pub fn svg(report: &Report, mtu: u16) -> String {
    let sections = sections(report, mtu);
    let bars = report.present().count();
    let footer = footer(report);
    let height = height(&sections, bars, footer.len());
    let mut out = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"t\">\n\
         <title id=\"t\">Rootless networks side by side, MTU {mtu}</title>\n\
         <style>{}</style>\n\
         <rect class=\"ground\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n",
        style(bars),
        WIDTH - 1.0,
        height - 1.0,
    );
    header(&mut out, report, mtu);
    let names: Vec<&str> = report.present().map(|b| b.label.as_str()).collect();
    let mut y = HEADER;
    for (title, panels) in &sections {
        let _ = writeln!(
            out,
            "<line class=\"rule\" x1=\"{MARGIN}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>",
            WIDTH - MARGIN
        );
        text(&mut out, MARGIN, y + 22.0, "section", title);
        y += SECTION_HEAD;
        for row in panels.chunks(COLUMNS) {
            for (panel, x) in row.iter().zip([MARGIN, MARGIN + PANEL + GUTTER]) {
                draw(&mut out, panel, &names, x, y);
            }
            y += panel_height(bars);
        }
        y -= SECTION_END;
    }
    y += 10.0;
    for line in footer {
        text(&mut out, MARGIN, y, "quiet small", &line);
        y += FOOTER_LINE;
    }
    out += "</svg>\n";
    out
}

/// What elements look like; with a class for each of so many bars, and lines.
pub(super) fn style(bars: usize) -> String {
    let mut light = STYLE.to_owned();
    let mut dark = DARK_STYLE.to_owned();
    for (number, (on_light, on_dark)) in colours().take(bars).enumerate() {
        for (css, colour) in [(&mut light, on_light), (&mut dark, on_dark)] {
            let _ = write!(
                css,
                ".b{number}{{fill:{colour}}}.l{number}{{stroke:{colour};fill:none;\
                 stroke-width:1.5}}"
            );
        }
    }
    format!("{light}@media(prefers-color-scheme:dark){{{dark}}}")
}

/// Without an end: colours are used again where there are more backends.
fn colours() -> impl Iterator<Item = (&'static str, &'static str)> {
    COLOURS.into_iter().cycle()
}

/// The panels, in groups with a title; empty groups are left out.
fn sections(report: &Report, mtu: u16) -> Vec<(&'static str, Vec<Panel<'_>>)> {
    let panel = |case: Case, title: String, metric: Metric| Panel {
        title,
        metric,
        results: report
            .present()
            .map(|backend| report.outcome(case, mtu, &backend.label))
            .collect(),
    };
    let (mut streams, mut latency, mut datagrams, mut cost) = (vec![], vec![], vec![], vec![]);
    for case in report.cases.iter().map(|info| info.name) {
        let main = panel(case, case.title(), case.metric());
        match case {
            Case::TcpUp(count) | Case::TcpDown(count) => {
                streams.push(main);
                // More streams cost the same per byte.
                if count == 1 {
                    let title = format!("Helper CPU: {}", case.title());
                    cost.push(panel(case, title, cases::HELPER_PER_GB));
                }
            }
            Case::TcpRr | Case::TcpCrr(_) | Case::UdpRr => latency.push(main),
            Case::UdpUp(_) | Case::UdpDown(_) => datagrams.push(main),
            Case::Flows(count) => {
                cost.push(main);
                let title = format!("Round trips beside {count} idle flows");
                cost.push(panel(case, title, cases::TRANSACTIONS));
            }
            Case::Startup => cost.push(main),
        }
    }
    let all = [
        ("TCP streams", streams),
        ("Transactions", latency),
        ("Datagrams that arrive", datagrams),
        ("Cost", cost),
    ];
    all.into_iter()
        .filter(|(_, panels)| !panels.is_empty())
        .collect()
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts of bars and panels are small"
)]
fn height(sections: &[(&str, Vec<Panel<'_>>)], bars: usize, footer_lines: usize) -> f64 {
    let rows: usize = sections
        .iter()
        .map(|(_, panels)| panels.len().div_ceil(COLUMNS))
        .sum();
    HEADER
        + sections.len() as f64 * (SECTION_HEAD - SECTION_END)
        + rows as f64 * panel_height(bars)
        + footer_lines as f64 * FOOTER_LINE
        + 14.0
}

#[allow(clippy::cast_precision_loss, reason = "there are few bars")]
fn panel_height(bars: usize) -> f64 {
    PANEL_HEAD + bars as f64 * BAR_PITCH + PANEL_GAP
}

fn header(out: &mut String, report: &Report, mtu: u16) {
    let [machine, settings] = report.circumstances(mtu);
    text(out, MARGIN, 38.0, "title", "Rootless networks side by side");
    text(out, MARGIN, 60.0, "quiet", &machine);
    text(out, MARGIN, 77.0, "quiet", &settings);
}

/// What the marks mean, and what was measured.
fn footer(report: &Report) -> Vec<String> {
    let spread = match report.settings.rounds {
        1 => "Bars are single samples.".to_owned(),
        n => format!("Bars are medians of {n} rounds, whiskers go from the lowest to the highest."),
    };
    let mut versions: Vec<String> = Vec::new();
    for backend in &report.backends {
        match &backend.version {
            _ if backend.missing => versions.push(format!("{} is not installed", backend.label)),
            Some(version) => versions.push(format!("{} {version}", backend.label)),
            None => {}
        }
    }
    let mut lines = vec![format!(
        "{spread} native is the host's loopback, without a container."
    )];
    lines.extend(Some(versions.join(", ")).filter(|line| !line.is_empty()));
    if !report.complete {
        lines.push("Ended early: not all samples were taken.".to_owned());
    }
    lines
}

/// Bars of one figure; `x` and `y` are the left end of the title's base line.
fn draw(out: &mut String, panel: &Panel<'_>, names: &[&str], x: f64, y: f64) {
    let sense = if panel.metric.more_is_better {
        "more is better"
    } else {
        "less is better"
    };
    text(out, x, y, "panel", &panel.title);
    let unit = format!("{}, {sense}", panel.metric.unit);
    end_text(out, x + PANEL, y, "quiet small", &unit);
    let figures: Vec<Option<Summary>> = panel
        .results
        .iter()
        .map(|result| result.and_then(|result| result.figure(panel.metric)))
        .collect();
    let scale = Scale::new(figures.iter().flatten(), BARS);
    let zero = x + NAMES;
    let mut top = y + PANEL_HEAD;
    for (number, (name, figure)) in names.iter().zip(&figures).enumerate() {
        let middle = top + BAR_HEIGHT / 2.0;
        let base = middle + 4.0;
        end_text(out, zero - 8.0, base, "small", &clipped(name));
        let result = panel.results.get(number).copied().flatten();
        match figure {
            Some(figure) => bar(out, &scale, figure, number, zero, top),
            None if result.is_some_and(|result| result.failures > 0) => {
                text(out, zero + 6.0, base, "small", "failed");
            }
            None if result.is_some() => text(out, zero + 6.0, base, "quiet small", "no helper"),
            None => text(out, zero + 6.0, base, "quiet small", "–"),
        }
        top += BAR_PITCH;
    }
    let _ = writeln!(
        out,
        "<line class=\"axis\" x1=\"{zero}\" x2=\"{zero}\" y1=\"{}\" y2=\"{}\"/>",
        y + PANEL_HEAD - 3.0,
        top - BAR_PITCH + BAR_HEIGHT + 3.0,
    );
}

/// A bar with its whisker and value.
fn bar(out: &mut String, scale: &Scale, figure: &Summary, number: usize, zero: f64, top: f64) {
    let length = scale.length(figure.median);
    let (low, high) = (
        zero + scale.length(figure.min),
        zero + scale.length(figure.max),
    );
    let middle = top + BAR_HEIGHT / 2.0;
    let _ = writeln!(
        out,
        "<rect class=\"b{number}\" x=\"{zero}\" y=\"{top:.1}\" width=\"{length:.1}\" \
         height=\"{BAR_HEIGHT}\"/>",
    );
    if figure.n > 1 {
        let (up, down) = (middle - CAP, middle + CAP);
        let _ = writeln!(
            out,
            "<path class=\"whisker\" d=\"M{low:.1} {up:.1}V{down:.1}M{low:.1} {middle:.1}\
             H{high:.1}M{high:.1} {up:.1}V{down:.1}\"/>",
        );
    }
    text(
        out,
        high.max(zero + length) + 7.0,
        middle + 4.0,
        "value small",
        &short(figure.median),
    );
}

/// From figures to lengths.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scale {
    /// The figure of which the length is `full`.
    most: f64,
    full: f64,
}

impl Scale {
    /// The largest sample has the length `full`.
    fn new<'a>(figures: impl Iterator<Item = &'a Summary>, full: f64) -> Self {
        let most = figures.map(|figure| figure.max).fold(0.0, f64::max);
        Self { most, full }
    }

    fn length(&self, value: f64) -> f64 {
        if self.most > 0.0 {
            (value / self.most).clamp(0.0, 1.0) * self.full
        } else {
            0.0
        }
    }
}

fn clipped(name: &str) -> String {
    if name.chars().count() <= LONGEST_NAME {
        return name.to_owned();
    }
    let head: String = name.chars().take(LONGEST_NAME - 1).collect();
    head + "…"
}

pub(super) fn text(out: &mut String, x: f64, y: f64, class: &str, words: &str) {
    let words = escaped(words);
    let _ = writeln!(
        out,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>"
    );
}

/// Text that ends at `x`.
pub(super) fn end_text(out: &mut String, x: f64, y: f64, class: &str, words: &str) {
    let words = escaped(words);
    let _ = writeln!(
        out,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{words}</text>"
    );
}

/// Text as XML has it; characters that XML cannot have are left out.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\u{fffe}' | '\u{ffff}' => {}
            c if c.is_control() => {}
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::testing::{report, sample};

    const CASES: [Case; 3] = [Case::TcpUp(1), Case::TcpRr, Case::Flows(10)];

    /// A chart, which has to be well-formed XML.
    fn parsed(svg: &str, look: impl Fn(&roxmltree::Document<'_>)) {
        look(&roxmltree::Document::parse(svg).unwrap());
    }

    fn texts(svg: &str) -> Vec<String> {
        let document = roxmltree::Document::parse(svg).unwrap();
        let texts = document
            .descendants()
            .filter(|node| node.has_tag_name("text"));
        texts
            .filter_map(|node| Some(node.text()?.to_owned()))
            .collect()
    }

    #[test]
    fn lengths_are_in_proportion_and_within_the_panel() {
        let summary = |median, max| Summary {
            median,
            min: 0.0,
            max,
            n: 2,
        };
        let figures = [summary(10.0, 20.0), summary(30.0, 40.0)];
        let scale = Scale::new(figures.iter(), 200.0);
        assert_eq!(scale.length(40.0), 200.0);
        assert_eq!(scale.length(10.0), 50.0);
        assert_eq!(scale.length(0.0), 0.0);
        assert_eq!(scale.length(99.0), 200.0);
        let nothing = Scale::new([summary(0.0, 0.0)].iter(), 200.0);
        assert_eq!(nothing.length(0.0), 0.0);
        assert_eq!(Scale::new([].iter(), 200.0).length(1.0), 0.0);
    }

    #[test]
    fn every_figure_has_a_bar_a_whisker_and_its_value() {
        let samples = [
            sample(CASES[0], "native", 1, Ok(40.0)),
            sample(CASES[0], "native", 2, Ok(20.0)),
            sample(CASES[0], "pasta", 1, Ok(15.0)),
            sample(CASES[0], "pasta", 2, Ok(15.0)),
            sample(CASES[1], "native", 1, Ok(1e4)),
            sample(CASES[1], "pasta", 1, Err("broken")),
        ];
        let svg = svg(&report(&["native", "pasta"], &CASES, &samples), 1500);
        parsed(&svg, |document| {
            let count = |tag| {
                document
                    .descendants()
                    .filter(|node| node.has_tag_name(tag))
                    .count()
            };
            assert_eq!(count("rect"), 1 + 3, "the ground and the bars\n{svg}");
            assert_eq!(count("path"), 2, "{svg}");
            let width = |class: &str| {
                let bar = document
                    .descendants()
                    .find(|node| node.attribute("class") == Some(class))
                    .unwrap();
                bar.attribute("width").unwrap().parse::<f64>().unwrap()
            };
            assert!((width("b0") - BARS * 0.75).abs() < 0.1, "{svg}");
            assert!((width("b1") - BARS * 0.375).abs() < 0.1, "{svg}");
        });
        let texts = texts(&svg);
        for expected in [
            "30.0",
            "15.0",
            "10.0k",
            "failed",
            "TCP streams",
            "TCP request and response",
        ] {
            assert!(
                texts.iter().any(|text| text == expected),
                "{expected} is not in {texts:?}"
            );
        }
        assert!(
            texts.iter().any(|text| text.starts_with("MTU 1500, ")),
            "{texts:?}"
        );
    }

    #[test]
    fn strange_names_stay_text() {
        let name = "<&\">\u{1b}\u{ffff}";
        let samples = [sample(CASES[1], name, 1, Ok(1.0))];
        let svg = svg(&report(&[name], &CASES[1..2], &samples), 1500);
        assert!(texts(&svg).contains(&"<&\">".to_owned()), "{svg}");
        assert_eq!(clipped("exactly-14-its"), "exactly-14-its");
        assert_eq!(clipped("a-name-that-is-long"), "a-name-that-i…");
    }

    #[test]
    fn without_any_sample_there_is_still_a_picture() {
        let svg = svg(&report(&["native"], &CASES, &[]), 1500);
        let texts = texts(&svg);
        assert!(texts.iter().any(|text| text == "–"), "{texts:?}");
    }
}
