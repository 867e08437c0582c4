//! Messages on standard error: one line each, text or JSON.

use std::fmt::{self, Write as _};
use std::io;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, Subscriber as FmtSubscriber};
use tracing_subscriber::registry::LookupSpan;

use super::args::{LogFormat, LogLevel};

/// Messages of this level and graver go to standard error from now on.
pub(super) fn start(level: LogLevel, format: LogFormat) {
    let filter = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let subscriber = FmtSubscriber::builder()
        .with_max_level(filter)
        .with_writer(io::stderr)
        // Reporting that standard error cannot be written to would need it.
        .log_internal_errors(false)
        .event_format(Line(format))
        .finish();
    // It can only be set once, and is: the first call stands.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Control characters escaped: much of what is printed comes from a container,
/// and must not reach the user's terminal as commands.
pub(super) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            safe.extend(c.escape_default())
        } else {
            safe.push(c)
        }
    }
    safe
}

/// One event per line: `crun-lite: LEVEL: message key=value` or
/// `{"level":"...","msg":"...","key":...}`.
struct Line(LogFormat);

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        let mut fields = Fields::default();
        event.record(&mut fields);
        writeln!(writer, "{}", fields.line(&level, self.0))
    }
}

/// The message and the fields of an event.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn line(self, level: &str, format: LogFormat) -> String {
        if format == LogFormat::Json {
            let mut object = Map::new();
            object.insert("level".to_owned(), level.into());
            object.insert("msg".to_owned(), self.message.into());
            object.extend(self.others);
            return Value::Object(object).to_string();
        }
        let mut line = format!("crun-lite: {level}: {}", printable(&self.message));
        for (name, value) in &self.others {
            // Writing to a String cannot fail.
            let _ = match value {
                Value::String(text) => write!(line, " {name}={}", printable(text)),
                other => write!(line, " {name}={other}"),
            };
        }
        line
    }

    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(message)) => self.message = message,
            (name, value) => {
                self.others.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = FmtSubscriber::builder()
            .with_max_level(LevelFilter::INFO)
            .with_writer(move || writer.clone())
            .event_format(Line(format))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(
                port = 80_u16,
                name = "a\x1b[2J",
                up = true,
                "link is {}",
                "up"
            );
            tracing::debug!("not shown");
        });
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn one_line_of_text() {
        assert_eq!(
            logged(LogFormat::Text),
            "crun-lite: warn: link is up name=a\\u{1b}[2J port=80 up=true\n"
        );
    }

    #[test]
    fn one_line_of_json() {
        let line = logged(LogFormat::Json);
        assert_eq!(line.lines().count(), 1);
        let object: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["level"], "warn");
        assert_eq!(object["msg"], "link is up");
        assert_eq!((&object["port"], &object["up"]), (&80.into(), &true.into()));
    }
}
