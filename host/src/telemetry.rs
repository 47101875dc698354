//! Log lines: to stderr, for people or for machines.
//!
//! What is logged is decided where it happens; here is only how it looks and which of it is let through. Nothing is
//! hidden here: the types of `config` don't print their secrets.

use std::fmt;
use std::io;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, JsonFields, Writer, format};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::Logging;
use crate::failure::{Failure, Kind};
use repeats::Sparing;

mod repeats;

/// Starts logging for the whole process, as `[logging]` says.
///
/// `ANTIPHON_LOG`, else `RUST_LOG`, overrides `level` and `verbose`, as in `ANTIPHON_LOG=antiphon=trace,warn`.
///
/// # Errors
/// If the filter in the environment makes no sense, or logging was started before.
pub fn start(logging: &Logging) -> Result<(), Failure> {
    let filter = ["ANTIPHON_LOG", "RUST_LOG"].into_iter().find_map(|name| Some((name, std::env::var(name).ok()?)));
    let filter = filter.filter(|(_, value)| !value.trim().is_empty());
    let filter = choose(logging, filter.as_ref().map(|(name, value)| (*name, value.as_str())))?;
    // Where a line can't be written, as on a full disk, a word about that can't be either, and trying ends in a panic.
    let plain = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    let started = if logging.format == "json" {
        plain.fmt_fields(JsonFields::new()).event_format(Sparing::new(Json)).try_init()
    } else {
        let colour = io::IsTerminal::is_terminal(&io::stderr()) && std::env::var_os("NO_COLOR").is_none();
        plain.with_ansi(colour).event_format(Sparing::new(format().with_target(false))).try_init()
    };
    started.map_err(|error| Failure::caused(Kind::General, "cannot start logging", &*error))
}

fn choose(logging: &Logging, variable: Option<(&str, &str)>) -> Result<EnvFilter, Failure> {
    let Some((name, directives)) = variable else {
        return configured(logging);
    };
    EnvFilter::try_new(directives).map_err(|error| {
        Failure::caused(Kind::Config, format!("the environment variable `{name}` is no filter of log lines"), &error)
            .hint(format!(
                "write a level, as in `{name}=debug`, or levels by module, as in `{name}=antiphon=trace,warn`"
            ))
    })
}

/// The filter that the configuration asks for.
fn configured(logging: &Logging) -> Result<EnvFilter, Failure> {
    // Other crates' debug lines would bury ours, and NATS's client repeats at each try what we say once.
    let usual = if logging.verbose { "info,async_nats=warn,antiphon=debug" } else { "info,async_nats=warn" };
    if logging.level.trim().is_empty() {
        return Ok(EnvFilter::new(usual));
    }
    let usual = if logging.level.contains("async_nats") { "" } else { "async_nats=warn," };
    EnvFilter::try_new(format!("{usual}{}", logging.level)).map_err(|error| {
        Failure::caused(Kind::Config, format!("`logging.level` is no filter of log lines: `{}`", logging.level), &error)
            .hint("write a level, as in `\"debug\"`, or levels by module, as in `\"info,antiphon::publish=debug\"`")
    })
}

/// Whether lines can be filtered as the configuration asks for.
///
/// # Errors
/// When what it says makes no sense.
pub(crate) fn check(logging: &Logging) -> Result<(), Failure> {
    configured(logging).map(drop)
}

/// One object a line: `level`, `time`, `message`, the spans it happened in, and its fields.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut line = Map::new();
        event.record(&mut Fields(&mut line));
        line.insert("level".into(), event.metadata().level().as_str().to_ascii_lowercase().into());
        line.insert("time".into(), time.into());
        line.insert("target".into(), event.metadata().target().into());
        let spans = context.event_scope().into_iter().flat_map(|scope| scope.from_root());
        let spans: Map<String, Value> = spans
            .map(|span| {
                let extensions = span.extensions();
                let fields = extensions.get::<FormattedFields<N>>();
                let fields = fields.and_then(|fields| serde_json::from_str(fields).ok()).unwrap_or_default();
                (span.name().to_owned(), Value::Object(fields))
            })
            .collect();
        if !spans.is_empty() {
            line.insert("spans".into(), Value::Object(spans));
        }
        writeln!(out, "{}", Value::Object(line))
    }
}

/// Collects an event's fields; numbers and flags stay what they are.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_line_has_level_time_message_and_fields() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(JsonFields::new())
            .event_format(Json)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("apply", shard = 3).entered();
            tracing::warn!(retry_in_ms = 250, error = %"a \"b\"\nc", "log unreachable, will retry");
        });
        let mut line: Value = serde_json::from_slice(&lines.0.lock().unwrap()).unwrap();
        let time = line.as_object_mut().unwrap().remove("time").unwrap();
        assert!(time.as_str().unwrap().ends_with('Z'));
        let expected = serde_json::json!({
            "level": "warn", "message": "log unreachable, will retry", "retry_in_ms": 250, "error": "a \"b\"\nc",
            "target": "antiphon::telemetry::tests", "spans": { "apply": { "shard": 3 } },
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn a_variable_overrides_verbose() {
        let logging = Logging { verbose: true, ..Logging::default() };
        assert_eq!(choose(&logging, None).unwrap().to_string(), "async_nats=warn,antiphon=debug,info");
        assert_eq!(choose(&logging, Some(("RUST_LOG", "warn"))).unwrap().to_string(), "warn");
    }

    #[test]
    fn levels_go_by_module() {
        let level = |level: &str| Logging { level: level.to_owned(), ..Logging::default() };
        let chosen = choose(&level("warn,antiphon::publish=debug"), None).unwrap().to_string();
        assert_eq!(chosen, "antiphon::publish=debug,async_nats=warn,warn");
        assert_eq!(choose(&level("async_nats=info"), None).unwrap().to_string(), "async_nats=info");
        let failure = choose(&level("antiphon=loud"), None).unwrap_err();
        assert!(failure.to_string().starts_with("`logging.level` is no filter of log lines: `antiphon=loud`: "));
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_refused() {
        let failure = choose(&Logging::default(), Some(("ANTIPHON_LOG", "antiphon=loud"))).unwrap_err();
        assert_eq!(failure.kind(), Kind::Config);
        assert!(failure.to_string().starts_with("the environment variable `ANTIPHON_LOG` is no filter of log lines: "));
    }
}
