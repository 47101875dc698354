//! Values that are well-formed and make no sense: each refused with the remedy.

use std::path::Path;

use super::keys::Leaf;
use super::plugins::{HASHERS, RESOLVERS, Required, hasher_settings, required};
use super::sources::Origin;
use super::{Config, Nats, PluginLimits, Settings, Size};
use crate::alarm::OnFull;
use crate::failure::Failure;
use crate::snapshot::Calendar;
use crate::words::did_you_mean;

type Verdict = Result<(), Failure>;

const METHODS: &[&str] = &["zstd", "gzip", "brotli", "lz4", "none"];
const STORES: &[&str] = &["nats", "s3", "webdav", "sftp", "file"];
const FORMATS: &[&str] = &["console", "json"];

/// Checks everything; the first fault ends it. `leaves` tell who made the setting that is wrong.
pub(super) fn all(config: &Config, file: Option<&Path>, leaves: &[Leaf]) -> Verdict {
    let check = || {
        database(config, file)?;
        intervals(config)?;
        log(config)?;
        patterns(config)?;
        plugins(config)?;
        resolvers(config)?;
        snapshots(config)?;
        observation(config)
    };
    check().map_err(|failure| located(failure, file, leaves))
}

/// Checks what names the database, and nothing else.
pub(super) fn only_database(config: &Config, file: Option<&Path>, leaves: &[Leaf]) -> Verdict {
    database(config, file).map_err(|failure| located(failure, file, leaves))
}

/// With where the setting was made.
fn located(failure: Failure, file: Option<&Path>, leaves: &[Leaf]) -> Failure {
    let said = failure.to_string();
    let leaf = leaves.iter().find(|leaf| said.contains(&format!("`{}`", leaf.shown)));
    match (leaf.and_then(|leaf| leaf.origin.as_ref()), file) {
        (Some(Origin::Variable(name)), _) => failure.context(format!("environment variable `{name}`")),
        (_, Some(file)) => failure.context(format!("configuration `{}`", file.display())),
        (_, None) => failure,
    }
}

fn database(config: &Config, file: Option<&Path>) -> Verdict {
    if config.db_path.as_os_str().is_empty() {
        let failure = Failure::config("no database: `db_path` is not set");
        return Err(match file {
            Some(file) => failure.hint(format!("add `db_path = \"app.db\"` at the top of `{}`", file.display())),
            None => failure.hint("name it: `antiphon run app.db`, or `antiphon run --config antiphon.toml`"),
        });
    }
    Ok(())
}

fn intervals(config: &Config) -> Verdict {
    within("scan_max_changes", config.scan_max_changes.into(), 1, 1_000_000)?;
    within("atomic_max", config.atomic_max.into(), 1, 1_000_000)?;
    within("cleanup_interval", config.cleanup_interval, 100, 86_400_000)?;
    if config.polling_interval != 0 {
        within("polling_interval", config.polling_interval, 5, 600_000)?;
    }
    if !config.publish && !config.replicate {
        return Err(Failure::config("`publish` and `replicate` are both off: there is nothing to do")
            .hint("leave one of them on"));
    }
    if config.seq_map_path == config.db_path {
        return Err(Failure::config("`seq_map_path` and `db_path` name the same file")
            .hint("remove `seq_map_path`: the file is only for other tools"));
    }
    Ok(())
}

fn log(config: &Config) -> Verdict {
    within("replication_log.shards", config.replication_log.shards.into(), 1, 1024)?;
    within("replication_log.max_entries", config.replication_log.max_entries, 1, u64::MAX)?;
    within("replication_log.replicas", config.replication_log.replicas.into(), 0, 5)?;
    let ceiling = config.replication_log.log_bytes_max;
    if ceiling.0 != 0 {
        size("replication_log.log_bytes_max", ceiling, 1 << 20, 1 << 60)?;
    }
    one_of("replication_log.on_full", &config.replication_log.on_full, &["block", "drop"])?;
    let on_full = &config.capture.outbox_on_full;
    one_of("capture.outbox_on_full", on_full, &OnFull::ALL.map(|(name, _)| name))?;
    if OnFull::named(on_full) != OnFull::Grow && config.capture.outbox_bytes_max == 0 {
        return Err(Failure::config(format!(
            "`outbox_on_full` is `{on_full}`, and nothing says when the outbox is full"
        ))
        .hint("set `outbox_bytes_max` under `[capture]`, too"));
    }
    let path = &config.log.path;
    if same_place(path, &config.db_path) {
        return Err(Failure::config(format!("`log.path` and `db_path` both name `{}`", path.display()))
            .hint("remove `path` under `[log]` to keep the log beside the database"));
    }
    if path.is_file() {
        return Err(Failure::config(format!("`log.path` must be a directory, and `{}` is a file", path.display()))
            .hint("name a directory; it is made if it does not exist"));
    }
    Ok(())
}

fn same_place(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

fn patterns(config: &Config) -> Verdict {
    let tables = config.conflict.table.iter().map(|table| ("conflict.table.match", &table.r#match));
    let include = config.capture.include.iter().map(|pattern| ("capture.include", pattern));
    let exclude = config.capture.exclude.iter().map(|pattern| ("capture.exclude", pattern));
    for (key, pattern) in include.chain(exclude).chain(tables) {
        if pattern.is_empty() {
            return Err(Failure::config(format!("`{key}` holds an empty pattern, which matches no table"))
                .hint("name a table, or write `*` for all"));
        }
        if let Err(error) = crate::db::Pattern::new(pattern) {
            return Err(Failure::config(format!("`{key}` holds `{pattern}`, which is no pattern: {}", error.kind()))
                .hint("a sign of a table's own name goes in brackets, as in `a[*]b`"));
        }
    }
    Ok(())
}

fn plugins(config: &Config) -> Verdict {
    for (name, plugin) in &config.plugin {
        let key = format!("plugin.{name}");
        if plugin.source.is_empty() {
            return Err(Failure::config(format!("`{key}.source` is not set"))
                .hint("write `source = \"builtin:NAME\"` or `source = \"file:PATH\"`"));
        }
        match plugin.source.split_once(':') {
            Some(("builtin" | "file", rest)) if !rest.is_empty() => {}
            _ => return Err(Failure::config(format!("`{key}.source` is neither `builtin:NAME` nor `file:PATH`"))),
        }
        let hash = &plugin.sha256;
        let good = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !good && !hash.is_empty() {
            return Err(Failure::config(format!("`{key}.sha256` must be 64 hexadecimal digits"))
                .hint(format!("`antiphon plugin pin {name}` writes the right ones")));
        }
        one_of(&format!("{key}.on_failure"), &plugin.on_failure, &["stop", "park"])?;
        limits(&format!("{key}.limits"), &plugin.limits)?;
    }
    Ok(())
}

/// Bounds beyond which a limit is none, or nothing could be done within it.
fn limits(key: &str, limits: &PluginLimits) -> Verdict {
    let key = |name: &str| format!("{key}.{name}");
    let (kib, mib, gib) = (1 << 10, 1 << 20, 1 << 30);
    size(&key("component_bytes"), limits.component_bytes, kib, 64 * mib)?;
    within(&key("compile_seconds"), limits.compile_seconds, 1, 3600)?;
    size(&key("compile_memory"), limits.compile_memory, 64 * mib, 64 * gib)?;
    size(&key("memory"), limits.memory, 64 * kib, 4 * gib)?;
    size(&key("returned"), limits.returned, kib, gib)?;
    within(&key("fuel_base"), limits.fuel_base, 1_000_000, 1_000_000_000_000)?;
    within(&key("fuel_per_item"), limits.fuel_per_item, 0, 100_000_000_000)?;
    within(&key("fuel_per_byte"), limits.fuel_per_byte, 0, 1_000_000)?;
    within(&key("watchdog"), limits.watchdog, 100, 600_000)?;
    within(&key("calls"), limits.calls, 1, u64::MAX)
}

fn size(key: &str, value: Size, least: u64, most: u64) -> Verdict {
    if (least..=most).contains(&value.0) {
        return Ok(());
    }
    Err(Failure::config(format!("`{key}` must be from {} to {}, found {value}", Size(least), Size(most))))
}

fn resolvers(config: &Config) -> Verdict {
    component(config, "hash.use", &config.hash.r#use, "hasher", HASHERS)?;
    agreed(config, &config.hash.r#use)?;
    hash_settings(config)?;
    component(config, "conflict.default", &config.conflict.default, "resolver", RESOLVERS)?;
    agreed(config, &config.conflict.default)?;
    for (position, table) in config.conflict.table.iter().enumerate() {
        let key = format!("conflict.table[{position}]");
        component(config, &format!("{key}.use"), &table.r#use, "resolver", RESOLVERS)?;
        agreed(config, &table.r#use)?;
        settings(config, &key, &table.r#use, Some(&table.settings))?;
    }
    let default = config.conflict.default.as_str();
    match required(default).filter(|_| !config.plugin.contains_key(default)) {
        None => settings(config, "conflict.default", default, None),
        Some(required) => Err(Failure::config(format!(
            "`conflict.default` is `{default}`, which needs the setting `{}`, and a default has no settings",
            required.setting
        ))
        .hint(format!(
            "add a `[[conflict.table]]` with `match = \"*\"`, `use = \"{default}\"` and `{}`",
            example(&required)
        ))),
    }
}

/// What resolvers and hashers are told is agreed in the log, where any node reads it.
fn agreed(config: &Config, name: &str) -> Verdict {
    let Some(plugin) = config.plugin.get(name) else { return Ok(()) };
    let secret = plugin.settings.reveal().into_iter().find(|(_, value)| value.contains("${"));
    let Some((setting, _)) = secret else { return Ok(()) };
    Err(Failure::config(format!(
        "`plugin.{name}.settings.{setting}` names a secret, and what this component is told stands in the log"
    ))
    .hint("write the value itself if all nodes may read it; a resolver or a hasher needs no secret"))
}

/// What the hasher is told, by name; the values are its own business.
fn hash_settings(config: &Config) -> Verdict {
    let name = config.hash.r#use.as_str();
    let plugin = config.plugin.get(name);
    let hasher = match plugin {
        None => name,
        Some(plugin) => match plugin.source.strip_prefix("builtin:") {
            Some(builtin) => builtin,
            None => return Ok(()),
        },
    };
    let known = hasher_settings(hasher);
    let own = plugin.map(|plugin| (format!("plugin.{name}.settings"), &plugin.settings));
    for (key, settings) in own.into_iter().chain([("hash.settings".to_owned(), &config.hash.settings)]) {
        if let Some(name) = settings.names().find(|name| !known.contains(name)) {
            let meant = did_you_mean(name, known.iter().copied());
            let failure = Failure::config(format!("`{key}.{name}` is no setting of `{hasher}`{meant}"));
            return Err(failure.hint(match known {
                [] => format!("`{hasher}` has no settings; remove it"),
                known => format!("`{hasher}` has {}", list(known)),
            }));
        }
    }
    Ok(())
}

/// What a policy is told, by the plugin's table and by its own, as far as that can be seen without the database.
fn settings(config: &Config, key: &str, name: &str, own: Option<&Settings>) -> Verdict {
    let plugin = config.plugin.get(name);
    let policy = match plugin {
        None => name,
        Some(plugin) => match plugin.source.strip_prefix("builtin:") {
            Some(builtin) => builtin,
            // Only the component itself knows what it wants to be told.
            None => return Ok(()),
        },
    };
    let required = required(policy);
    let known = required.as_ref().map(|required| required.setting);
    let tables =
        [(format!("plugin.{name}.settings"), plugin.map(|plugin| &plugin.settings)), (format!("{key}.settings"), own)];
    let tables: Vec<(String, &Settings)> =
        tables.into_iter().filter_map(|(key, settings)| Some((key, settings?))).collect();
    for (key, settings) in &tables {
        if let Some(name) = settings.names().find(|name| Some(*name) != known) {
            let meant = did_you_mean(name, known.into_iter());
            let failure = Failure::config(format!("`{key}.{name}` is no setting of `{policy}`{meant}"));
            return Err(failure.hint(match known {
                Some(known) => format!("`{policy}` has only `{known}`"),
                None => format!("`{policy}` has no settings; remove it"),
            }));
        }
    }
    let Some(required) = required else { return Ok(()) };
    // The policy's own table has the last word; if neither says anything, that is where it belongs.
    let said = tables.iter().rev().find(|(_, settings)| !settings.is_empty()).or(tables.last());
    let (key, value) = match said {
        Some((key, settings)) => (format!("{key}.{}", required.setting), Some(*settings)),
        None => (format!("{key}.{}", required.setting), None),
    };
    let why = match value.and_then(|settings| settings.text(required.setting)) {
        Some(list) if list.split(',').all(|name| !name.trim().is_empty()) => return Ok(()),
        Some(list) => format!("`{key}` holds an empty name: `{list}`"),
        None if value.is_none_or(Settings::is_empty) => {
            format!("`{key}` is not set, and `{policy}` can't do without it")
        }
        None => format!("`{key}` must be a text"),
    };
    Err(Failure::config(why).hint(format!("write {} joined by commas, as in `{}`", required.what, example(&required))))
}

fn example(required: &Required) -> String {
    format!("settings = {{ {} = \"{}\" }}", required.setting, required.example)
}

fn component(config: &Config, key: &str, name: &str, what: &str, builtin: &[&str]) -> Verdict {
    let official = match config.plugin.get(name) {
        None => Some(name),
        Some(plugin) => plugin.source.strip_prefix("builtin:"),
    };
    match official {
        Some(official) if !builtin.contains(&official) => {}
        _ => return Ok(()),
    }
    if config.plugin.contains_key(name) {
        return Err(Failure::config(format!(
            "`{key}` is `{name}`, and `plugin.{name}.source` names no {what} that comes with the program"
        ))
        .hint(format!("it is `builtin:` and one of {}, or `file:PATH`", list(builtin))));
    }
    let known = builtin.iter().copied().chain(config.plugin.keys().map(String::as_str));
    Err(Failure::config(format!("`{key}` names no {what}: `{name}`{}", did_you_mean(name, known)))
        .hint(format!("it is {}, or the NAME of a `[plugin.NAME]`", list(builtin))))
}

/// Classes of S3 whose objects have to be asked for before they can be read.
const SLEEPING: &[&str] = &["GLACIER", "DEEP_ARCHIVE"];

fn snapshots(config: &Config) -> Verdict {
    within("snapshot.parallel", config.snapshot.parallel.into(), 1, 64)?;
    within("snapshot.jitter", config.snapshot.jitter.into(), 0, 50)?;
    within("snapshot.archive_bytes", config.snapshot.archive_bytes.0, 1 << 10, 64 << 20)?;
    within("snapshot.archive_entries", config.snapshot.archive_entries.into(), 1, 1_000_000)?;
    within("snapshot.archive_interval", config.snapshot.archive_interval, 1, 3_600_000)?;
    one_of("snapshot.compression", &config.snapshot.compression, METHODS)?;
    let cron = &config.snapshot.cron;
    if !cron.is_empty()
        && let Err(why) = Calendar::read(cron)
    {
        return Err(Failure::config(format!(
            "`snapshot.cron` must be times as cron writes them, found `{cron}`: {why}"
        ))
        .hint("write minute, hour, day of the month, month and day of the week: `30 3 * * *` is 03:30 every day"));
    }
    let store = config.snapshot.store.as_str();
    let class = config.snapshot.s3.archive_class.as_str();
    if SLEEPING.contains(&class) {
        return Err(Failure::config(format!(
            "`snapshot.s3.archive_class` can't be `{class}`: it takes hours to read from it"
        ))
        .hint("use a class that is read at once, as `STANDARD_IA` or `GLACIER_IR`"));
    }
    if config.snapshot.archive_after > 0 && (store != "s3" || class.is_empty()) {
        return Err(Failure::config("`snapshot.archive_after` needs a class of storage that old snapshots get")
            .hint("with `store = \"s3\"` say it by `archive_class` under `[snapshot.s3]`; other storages have none"));
    }
    match store.strip_prefix("plugin:") {
        Some(name) if config.plugin.contains_key(name) => Ok(()),
        Some(name) => Err(Failure::config(format!("`snapshot.store` names no plugin: `{name}`"))
            .hint(format!("add a `[plugin.{name}]`"))),
        None => one_of("snapshot.store", store, STORES),
    }
}

fn observation(config: &Config) -> Verdict {
    one_of("logging.format", &config.logging.format, FORMATS)?;
    bind("prometheus.bind", &config.prometheus.bind, false)?;
    bind("health_check.bind", &config.health_check.bind, false)?;
    bind("nats.bind_address", &config.nats.bind_address, true)?;
    server(&config.nats)?;
    for (key, name) in
        [("prometheus.namespace", &config.prometheus.namespace), ("prometheus.subsystem", &config.prometheus.subsystem)]
    {
        let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !letters || name.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(Failure::config(format!("`{key}` can't begin the name of a metric: `{name}`"))
                .hint("use letters, digits and `_`, and a letter first"));
        }
    }
    let health = &config.health_check;
    if !health.path.starts_with('/') {
        return Err(Failure::config("`health_check.path` must start with `/`"));
    }
    if ["/livez", "/readyz", "/metrics", "/events"].contains(&health.path.as_str()) {
        return Err(Failure::config(format!("`health_check.path` is `{}`, which means something else", health.path))
            .hint("choose another path, as `/health`"));
    }
    within("health_check.log_grace", health.log_grace, 0, 86_400_000)?;
    within("health_check.lag_max", health.lag_max, 1_000, u64::MAX)?;
    crate::telemetry::check(&config.logging)?;
    alerts(config)
}

/// Whoever is told when something is wrong can be told.
fn alerts(config: &Config) -> Verdict {
    let alerts = &config.alerts;
    let webhook = alerts.webhook.reveal();
    // One that stands elsewhere is looked at when the node starts.
    if !webhook.is_empty() && !webhook.starts_with("${") {
        crate::alerts::check_webhook(webhook)?;
    }
    if webhook.is_empty() && (!alerts.token.is_empty() || !alerts.ca_file.as_os_str().is_empty()) {
        return Err(Failure::config("`alerts.token` and `alerts.ca_file` go with `alerts.webhook`, which is not set"));
    }
    if alerts.command.first().is_some_and(String::is_empty) {
        return Err(Failure::config("`alerts.command` names no program")
            .hint("write it as `[\"/path/to/program\", \"argument\"]`"));
    }
    Ok(())
}

/// The server that is started, if one is.
fn server(nats: &Nats) -> Verdict {
    if nats.start_server && !nats.urls.is_empty() {
        return Err(Failure::config("`nats.start_server` and `nats.urls` are both set")
            .hint("remove `urls` to have a server started here, or `start_server` to use those"));
    }
    if !nats.cluster_addr.is_empty() {
        bind("nats.cluster_addr", &nats.cluster_addr, false)?;
    } else if !nats.cluster_peers.is_empty() {
        return Err(Failure::config("`nats.cluster_peers` names others, and `nats.cluster_addr` is not set")
            .hint("name the address at which they reach this server, as `cluster_addr = \"10.0.0.1:4248\"`"));
    }
    if nats.cert_file.as_os_str().is_empty() != nats.key_file.as_os_str().is_empty() {
        return Err(Failure::config("`nats.cert_file` and `nats.key_file` belong together, and only one is set"));
    }
    Ok(())
}

fn bind(key: &str, address: &str, any_free: bool) -> Verdict {
    let port = address.rsplit_once(':').map(|(_, port)| port);
    if port.is_some_and(|port| port.parse::<u16>().is_ok() || (any_free && port == "-1")) {
        return Ok(());
    }
    Err(Failure::config(format!("`{key}` must be `host:port`, found `{address}`")))
}

fn one_of(key: &str, name: &str, known: &[&str]) -> Verdict {
    if known.contains(&name) {
        return Ok(());
    }
    let meant = did_you_mean(name, known.iter().copied());
    Err(Failure::config(format!("`{key}` must be one of {}, found `{name}`{meant}", list(known))))
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn within(key: &str, value: u64, least: u64, most: u64) -> Verdict {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let bounds = if most == u64::MAX { format!("at least {least}") } else { format!("from {least} to {most}") };
    Err(Failure::config(format!("`{key}` must be {bounds}, found {value}")))
}
