//! What a configuration says, from file and variables to values and sentences.

use std::path::{Path, PathBuf};

use super::*;
use crate::failure::Kind as Failed;

/// A file in a folder of its own, and variables.
struct Case {
    folder: tempfile::TempDir,
    variables: Vec<(&'static str, &'static str)>,
}

impl Case {
    fn new(file: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("antiphon.toml"), file).unwrap();
        Self { folder, variables: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.variables.push((name, value));
        self
    }

    fn load(&self) -> Result<Loaded, Failure> {
        Config::load(Sources {
            file: Some(self.folder.path().join("antiphon.toml")),
            environment: Environment::of(self.variables.clone()),
            overrides: Overrides::default(),
        })
    }

    fn config(&self) -> Config {
        self.load().unwrap().config
    }

    /// What is said and hinted, without the folder.
    fn refusal(&self) -> String {
        let failure = self.load().unwrap_err();
        assert_eq!(failure.kind(), Failed::Config);
        let mut text = failure.to_string();
        for hint in failure.hints() {
            text.push_str("\nhint: ");
            text.push_str(hint);
        }
        text.replace(&format!("{}/", self.folder.path().display()), "")
    }
}

fn refused(file: &str) -> String {
    Case::new(&format!("db_path = 'app.db'\n{file}")).refusal()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap()
}

#[track_caller]
fn refuses(file: &str, sentence: &str) {
    assert_eq!(first_line(&refused(file)), sentence);
}

/// A file as HarmonyLite's users have it: all keys of theirs are known.
const THEIRS: &str = r#"
seq_map_path = "/tmp/seq-map.cbor"
db_path = "/tmp/app.db"
node_id = 2
publish = true
replicate = true
scan_max_changes = 512
cleanup_interval = 30000
sleep_timeout = 0
polling_interval = 100
[replication_log]
shards = 4
max_entries = 2048
replicas = 3
compress = true
update_existing = false
[snapshot]
enabled = true
interval = 3600000
leader_ttl = 0
store = "s3"
[snapshot.nats]
replicas = 1
bucket = "b"
[snapshot.s3]
path = "snaps"
endpoint = "127.0.0.1:9000"
access_key = "minio"
secret = "minioadmin"
session_token = ""
bucket = "b"
use_ssl = false
[snapshot.webdav]
url = "https://dav.example.org/?dir=x&login=l&secret=s"
[snapshot.sftp]
url = "sftp://u:p@host:22/x"
[nats]
urls = []
subject_prefix = "p"
stream_prefix = "s"
server_config = ""
seed_file = ""
user_name = "u"
user_password = "p4ssw0rd"
ca_file = ""
cert_file = ""
key_file = ""
bind_address = "0.0.0.0:4222"
connect_retries = -1
reconnect_wait_seconds = 2
[logging]
verbose = true
format = "json"
[prometheus]
bind = ":3010"
enable = true
namespace = "harmonylite"
subsystem = ""
[health_check]
enable = true
bind = "0.0.0.0:8090"
path = "/health"
detailed = true
"#;

#[test]
fn all_their_keys_parse_with_their_meaning() {
    let config = Case::new(THEIRS).config();
    assert_eq!(config.node_id, 2);
    assert_eq!(config.replication_log.shards, 4);
    assert_eq!(config.scan_max_changes, 512);
    assert_eq!(config.snapshot.s3.secret.reveal(), "minioadmin");
    assert_eq!(config.nats.connect_retries, -1);
    assert_eq!(config.prometheus.bind, "127.0.0.1:3010");
    assert_eq!(config.log.path, Path::new("/tmp/app.db.antiphon/log"));
    assert!(config.logging.verbose);
}

#[test]
fn nothing_given_means_the_defaults() {
    let case = Case::new("db_path = 'app.db'");
    let config = case.config();
    let db_path = case.folder.path().join("app.db");
    let state = case.folder.path().join("app.db.antiphon");
    let mut expected = Config {
        db_path,
        log: Log { path: state.join("log") },
        seq_map_path: state.join("seq-map.cbor"),
        ..Config::default()
    };
    expected.snapshot.store = "file".to_owned();
    expected.snapshot.file.path = state.join("log/snapshots");
    assert_eq!(config, expected);
}

#[test]
fn a_slip_of_the_pen_is_refused_with_the_name_it_meant() {
    refuses(
        "[replication_log]\nshard = 4",
        "unknown key `replication_log.shard` in `antiphon.toml`; did you mean `shards`?",
    );
    refuses("nodeid = 4", "unknown key `nodeid` in `antiphon.toml`; did you mean `node_id`?");
    refuses("[snapshot]\nenable = true", "unknown key `snapshot.enable` in `antiphon.toml`; did you mean `enabled`?");
    refuses("[snapshot.s3]\nzone = 'x'", "unknown key `snapshot.s3.zone` in `antiphon.toml`");
    refuses("zzz = 4", "unknown key `zzz` in `antiphon.toml`");
}

#[test]
fn a_key_in_the_wrong_table_is_sent_to_the_right_one() {
    refuses("shards = 4", "unknown key `shards` in `antiphon.toml`; did you mean `replication_log.shards`?");
    refuses("[log]\nverbose = true", "unknown key `log.verbose` in `antiphon.toml`; did you mean `logging.verbose`?");
    refuses(
        "[sharding]\nshards = 4",
        "unknown key `sharding.shards` in `antiphon.toml`; did you mean `replication_log.shards`?",
    );
}

#[test]
fn a_table_by_the_wrong_name_is_refused() {
    refuses(
        "[healthcheck]\nenable = true",
        "unknown table `healthcheck` in `antiphon.toml`; did you mean `health_check`?",
    );
    refuses(
        "[replication]\nshards = 1",
        "unknown table `replication` in `antiphon.toml`; did you mean `replication_log`?",
    );
    refuses("[snapshot.s4]\nbucket = ''", "unknown table `snapshot.s4` in `antiphon.toml`; did you mean `s3`?");
}

#[test]
fn names_from_their_documentation_are_understood() {
    refuses(
        "[sharding]\nignore_tables = []",
        "unknown key `sharding.ignore_tables` in `antiphon.toml`; did you mean `capture.exclude`?",
    );
    refuses("[nats]\ntls_ca_file = 'x'", "unknown key `nats.tls_ca_file` in `antiphon.toml`; did you mean `ca_file`?");
}

#[test]
fn unknown_names_in_plugins_and_lists_are_refused() {
    refuses("[plugin.x]\nsorce = ''", "unknown key `plugin.x.sorce` in `antiphon.toml`; did you mean `source`?");
    refuses(
        "[[conflict.table]]\nmach = 'a'",
        "unknown key `conflict.table[0].mach` in `antiphon.toml`; did you mean `match`?",
    );
    refuses(
        "[plugin.x.grants]\nhttps = []",
        "unknown key `plugin.x.grants.https` in `antiphon.toml`; did you mean `http`?",
    );
}

#[test]
fn a_wrong_type_is_named_with_what_was_expected_and_found() {
    refuses(
        "[replication_log]\nshards = 'four'",
        "`replication_log.shards` in `antiphon.toml` must be a whole number, found the text `four`",
    );
    refuses("publish = 1", "`publish` in `antiphon.toml` must be true or false, found the number 1");
    refuses(
        "[capture]\ninclude = 'a'",
        "`capture.include` in `antiphon.toml` must be a list of texts, found the text `a`",
    );
    refuses(
        "[capture]\ninclude = [1]",
        "`capture.include` in `antiphon.toml` must be a list of texts, found the number 1",
    );
    refuses("nats = 'x'", "`nats` in `antiphon.toml` must be a table, found the text `x`");
    refuses(
        "cleanup_interval = -1",
        "`cleanup_interval` in `antiphon.toml` must be a whole number, at least 0, found the number -1",
    );
    refuses(
        "scan_max_changes = 1.5",
        "`scan_max_changes` in `antiphon.toml` must be a whole number, found the number 1.5",
    );
    refuses(
        "[conflict]\ntable = 1",
        "`conflict.table` in `antiphon.toml` must be a list of tables, found the number 1",
    );
    refuses("[plugin.x]\nsettings = 1", "`plugin.x.settings` in `antiphon.toml` must be a table, found the number 1");
}

#[test]
fn no_message_quotes_a_secret() {
    let password = refused("[nats]\nuser_password = 12345");
    assert_eq!(first_line(&password), "`nats.user_password` in `antiphon.toml` must be a text, found a number");
    assert!(!refused("[nats]\nuser_password = 'hunter2' x").contains("hunter2"));
    assert!(!refused("[nats]\nurls = 'nats://u:hunter2@h'").contains("hunter2"));
    assert!(!refused("[nats]\nuser_passwort = 'hunter2'").contains("hunter2"));
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_the_place() {
    insta::assert_snapshot!(refused("node_id = \n"), @r"
    `antiphon.toml` is not TOML: line 2, column 11: string values must be quoted, expected literal string
    hint: see how it is written with `antiphon config example`
    ");
}

#[test]
fn values_that_make_no_sense_are_refused() {
    let sentence = |file: &str| refused(file).lines().next().unwrap().to_owned();
    let all = [
        "[replication_log]\nshards = 0",
        "[replication_log]\nshards = 1025",
        "[capture]\ninclude = ['a[']",
        "[capture]\nexclude = ['']",
        "[log]\npath = 'app.db'",
        "[log]\npath = 'antiphon.toml'",
        "seq_map_path = 'app.db'",
        "[snapshot]\nstore = 's4'",
        "[snapshot]\nstore = 'plugin:x'",
        "[logging]\nformat = 'jsn'",
        "[conflict]\ndefault = 'newest-win'",
        "[[conflict.table]]\nmatch = 'a'",
        "[hash]\nuse = 'md5'",
        "[plugin.x]",
        "[plugin.x]\nsource = 'x.wasm'",
        "[plugin.x]\nsource = 'builtin:counter'\non_failure = 'parc'",
        "[plugin.x]\nsource = 'builtin:counter'\nlimits = { memory = '65 Gib' }",
        "[plugin.x]\nsource = 'builtin:counter'\nlimits = { component_bytes = '64 megabytes' }",
        "[plugin.x]\nsource = 'builtin:counter'\nlimits = { fuel_base = 0 }",
        "[hash]\nuse = 'x'\n[plugin.x]\nsource = 'builtin:counter'",
        "[conflict]\ndefault = 'x'\n[plugin.x]\nsource = 'file:x.wasm'\nsettings = { a = '${file:/s}' }",
        "[plugin.x]\nsource = 'builtin:s3'\nsha256 = 'ab'",
        "[prometheus]\nbind = 'localhost'",
        "[prometheus]\nnamespace = '1-a'",
        "[health_check]\npath = 'health'",
        "[health_check]\npath = '/metrics'",
        "[alerts]\nwebhook = 'nonsense'",
        "[alerts]\ntoken = 'x'",
        "[alerts]\ncommand = ['']",
    ]
    .map(sentence)
    .join("\n");
    insta::assert_snapshot!(all, @r#"
    configuration `antiphon.toml`: `replication_log.shards` must be from 1 to 1024, found 0
    configuration `antiphon.toml`: `replication_log.shards` must be from 1 to 1024, found 1025
    configuration `antiphon.toml`: `capture.include` holds `a[`, which is no pattern: unclosed character class; missing ']'
    configuration `antiphon.toml`: `capture.exclude` holds an empty pattern, which matches no table
    configuration `antiphon.toml`: `log.path` and `db_path` both name `app.db`
    configuration `antiphon.toml`: `log.path` must be a directory, and `antiphon.toml` is a file
    configuration `antiphon.toml`: `seq_map_path` and `db_path` name the same file
    configuration `antiphon.toml`: `snapshot.store` must be one of `nats`, `s3`, `webdav`, `sftp`, `file`, found `s4`; did you mean `s3`?
    configuration `antiphon.toml`: `snapshot.store` names no plugin: `x`
    configuration `antiphon.toml`: `logging.format` must be one of `console`, `json`, found `jsn`; did you mean `json`?
    configuration `antiphon.toml`: `conflict.default` names no resolver: `newest-win`; did you mean `newest-wins`?
    configuration `antiphon.toml`: `conflict.table[0].use` names no resolver: ``
    configuration `antiphon.toml`: `hash.use` names no hasher: `md5`
    configuration `antiphon.toml`: `plugin.x.source` is not set
    configuration `antiphon.toml`: `plugin.x.source` is neither `builtin:NAME` nor `file:PATH`
    configuration `antiphon.toml`: `plugin.x.on_failure` must be one of `stop`, `park`, found `parc`; did you mean `park`?
    configuration `antiphon.toml`: `plugin.x.limits.memory` must be from 64 KiB to 4 GiB, found 65 GiB
    `plugin.x.limits.component_bytes` in `antiphon.toml` must be an amount of bytes, as `"64 MiB"`, found the text `64 megabytes`
    configuration `antiphon.toml`: `plugin.x.limits.fuel_base` must be from 1000000 to 1000000000000, found 0
    configuration `antiphon.toml`: `hash.use` is `x`, and `plugin.x.source` names no hasher that comes with the program
    configuration `antiphon.toml`: `plugin.x.settings.a` names a secret, and what this component is told stands in the log
    configuration `antiphon.toml`: `plugin.x.sha256` must be 64 hexadecimal digits
    configuration `antiphon.toml`: `prometheus.bind` must be `host:port`, found `localhost`
    configuration `antiphon.toml`: `prometheus.namespace` can't begin the name of a metric: `1-a`
    configuration `antiphon.toml`: `health_check.path` must start with `/`
    configuration `antiphon.toml`: `health_check.path` is `/metrics`, which means something else
    configuration `antiphon.toml`: cannot use `alerts.webhook`: it is no address of a server; write it as `https://host/path`
    configuration `antiphon.toml`: `alerts.token` and `alerts.ca_file` go with `alerts.webhook`, which is not set
    configuration `antiphon.toml`: `alerts.command` names no program
    "#);
}

#[test]
fn a_policy_is_chosen_per_table() {
    let case = Case::new(
        "db_path = 'app.db'\n[conflict]\ndefault = 'column-merge'\n\
         [[conflict.table]]\nmatch = 'stock'\nuse = 'counter'\nsettings = { columns = 'quantity, reserved' }\n\
         [[conflict.table]]\nmatch = 'price*'\nuse = 'node-priority'\nsettings = { order = '1' }\n\
         [[conflict.table]]\nmatch = 'log'\nuse = 'first-write-wins'\n\
         [[conflict.table]]\nmatch = 'draft'\nuse = 'newest-wins'\nsettings = {}\n\
         [[conflict.table]]\nmatch = '*'\nuse = 'last-write-wins'",
    );
    let config = case.config();
    assert_eq!(config.conflict.default, "column-merge");
    assert_eq!(config.conflict.table[0].settings.reveal(), [("columns".to_owned(), "quantity, reserved".to_owned())]);
}

#[test]
fn a_policy_that_lacks_a_setting_or_has_one_too_many_is_refused_with_the_remedy() {
    let table = |rest: &str| refused(&format!("[[conflict.table]]\nmatch = '*'\nuse = {rest}"));
    let all = [
        table("'counter'"),
        table("'counter'\nsettings = { colums = 'a' }"),
        table("'counter'\nsettings = { columns = ['a', 'b'] }"),
        table("'counter'\nsettings = { columns = 'a,,b' }"),
        table("'node-priority'\nsettings = { order = '' }"),
        table("'node-priority'\nsettings = { order = 1 }"),
        table("'column-merge'\nsettings = { columns = 'a' }"),
        table("'mine'\n[plugin.mine]\nsource = 'builtin:counter'"),
        table("'mine'\n[plugin.mine]\nsource = 'builtin:counter'\nsettings = { colums = 'a' }"),
        table("'mine'\n[plugin.mine]\nsource = 'builtin:counter'\nsettings = { columns = 1 }"),
        refused("[conflict]\ndefault = 'counter'"),
        refused("[conflict]\ndefault = 'node-priority'"),
    ]
    .join("\n");
    insta::assert_snapshot!(all, @r#"
    configuration `antiphon.toml`: `conflict.table[0].settings.columns` is not set, and `counter` can't do without it
    hint: write names of columns joined by commas, as in `settings = { columns = "quantity, reserved" }`
    configuration `antiphon.toml`: `conflict.table[0].settings.colums` is no setting of `counter`; did you mean `columns`?
    hint: `counter` has only `columns`
    configuration `antiphon.toml`: `conflict.table[0].settings.columns` must be a text
    hint: write names of columns joined by commas, as in `settings = { columns = "quantity, reserved" }`
    configuration `antiphon.toml`: `conflict.table[0].settings.columns` holds an empty name: `a,,b`
    hint: write names of columns joined by commas, as in `settings = { columns = "quantity, reserved" }`
    configuration `antiphon.toml`: `conflict.table[0].settings.order` holds an empty name: ``
    hint: write numbers of nodes joined by commas, as in `settings = { order = "1, 2" }`
    configuration `antiphon.toml`: `conflict.table[0].settings.order` must be a text
    hint: write numbers of nodes joined by commas, as in `settings = { order = "1, 2" }`
    configuration `antiphon.toml`: `conflict.table[0].settings.columns` is no setting of `column-merge`
    hint: `column-merge` has no settings; remove it
    configuration `antiphon.toml`: `conflict.table[0].settings.columns` is not set, and `counter` can't do without it
    hint: write names of columns joined by commas, as in `settings = { columns = "quantity, reserved" }`
    configuration `antiphon.toml`: `plugin.mine.settings.colums` is no setting of `counter`; did you mean `columns`?
    hint: `counter` has only `columns`
    configuration `antiphon.toml`: `plugin.mine.settings.columns` must be a text
    hint: write names of columns joined by commas, as in `settings = { columns = "quantity, reserved" }`
    configuration `antiphon.toml`: `conflict.default` is `counter`, which needs the setting `columns`, and a default has no settings
    hint: add a `[[conflict.table]]` with `match = "*"`, `use = "counter"` and `settings = { columns = "quantity, reserved" }`
    configuration `antiphon.toml`: `conflict.default` is `node-priority`, which needs the setting `order`, and a default has no settings
    hint: add a `[[conflict.table]]` with `match = "*"`, `use = "node-priority"` and `settings = { order = "1, 2" }`
    "#);
}

#[test]
fn a_hasher_is_told_what_it_knows() {
    let case = Case::new("db_path = 'app.db'\n[hash]\nuse = 'xxh3'\nsettings = { columns = 'tenant', seed = 7 }");
    let told = [("columns".to_owned(), "tenant".to_owned()), ("seed".to_owned(), "7".to_owned())];
    assert_eq!(case.config().hash.settings.reveal(), told);
    let mine = "[plugin.mine]\nsource = 'builtin:xxh3'\nsettings = { seed = 1 }";
    Case::new(&format!("db_path = 'app.db'\n[hash]\nuse = 'mine'\nsettings = {{ seed = 2 }}\n{mine}")).config();
    let all = [
        refused("[hash]\nuse = 'xxh3'\nsettings = { column = 'tenant' }"),
        refused("[hash]\nsettings = { seed = 1 }"),
        refused("[hash]\nuse = 'mine'\n[plugin.mine]\nsource = 'builtin:fnv'\nsettings = { seed = 1 }"),
        refused("[hash]\nuse = 'xxh3'\nsettings = 7"),
    ]
    .join("\n");
    insta::assert_snapshot!(all, @r"
    configuration `antiphon.toml`: `hash.settings.column` is no setting of `xxh3`; did you mean `columns`?
    hint: `xxh3` has `columns`, `seed`
    configuration `antiphon.toml`: `hash.settings.seed` is no setting of `fnv`
    hint: `fnv` has no settings; remove it
    configuration `antiphon.toml`: `plugin.mine.settings.seed` is no setting of `fnv`
    hint: `fnv` has no settings; remove it
    `hash.settings` in `antiphon.toml` must be a table, found the number 7
    ");
}

/// What a plugin is told may stand in its own table, in that of the tables it decides over, or nowhere for one that
/// only the user knows.
#[test]
fn a_plugin_is_told_what_it_needs_by_either_table() {
    for more in [
        "[conflict]\ndefault = 'mine'\n[plugin.mine]\nsource = 'builtin:counter'\nsettings = { columns = 'a' }",
        "[[conflict.table]]\nmatch = 'a'\nuse = 'mine'\nsettings = { columns = 'a' }\n[plugin.mine]\nsource = 'builtin:counter'",
        "[[conflict.table]]\nmatch = 'a'\nuse = 'mine'\n[plugin.mine]\nsource = 'builtin:counter'\nsettings = { columns = 'a' }",
        "[conflict]\ndefault = 'mine'\n[plugin.mine]\nsource = 'file:mine.wasm'\nsettings = { whatever = 1 }",
    ] {
        let case = Case::new(&format!("db_path = 'app.db'\n{more}"));
        case.config();
    }
}

/// Amounts are numbers or texts, from the file as from the environment; what is shown is what was said.
#[test]
fn limits_are_amounts() {
    let case = Case::new(
        "db_path = 'app.db'\n[plugin.x]\nsource = 'builtin:counter'\n\
         limits = { memory = '256 MiB', returned = 4096, fuel_base = 5_000_000_000 }",
    );
    let limits = &case.config().plugin["x"].limits;
    assert_eq!((limits.memory, limits.returned, limits.fuel_base), (Size(256 << 20), Size(4096), 5_000_000_000));
    assert_eq!(limits.compile_memory.to_string(), "2 GiB");
}

/// A name that is known here and not in the program would be refused at the start, or the other way round here.
#[test]
fn the_components_are_those_that_come_with_the_program() {
    use antiphon_bundle::{ALL, World};
    let named = |world| ALL.iter().filter(move |component| component.world == world).map(|component| component.name);
    assert!(named(World::Resolver).eq(RESOLVERS.iter().copied()));
    assert!(named(World::Hasher).eq(HASHERS.iter().copied()));
}

#[test]
fn a_file_without_a_database_says_what_to_add() {
    insta::assert_snapshot!(Case::new("node_id = 1").refusal(), @r#"
    configuration `antiphon.toml`: no database: `db_path` is not set
    hint: add `db_path = "app.db"` at the top of `antiphon.toml`
    "#);
}

#[test]
fn the_environment_overrides_the_file() {
    let case = Case::new("db_path = 'app.db'\nnode_id = 1\n[replication_log]\nshards = 2\nmax_entries = 9")
        .with("ANTIPHON_REPLICATION_LOG__SHARDS", "4")
        .with("ANTIPHON_PUBLISH", "false")
        .with("ANTIPHON_DB_PATH", "other.db")
        .with("ANTIPHON_CAPTURE__INCLUDE", "[\"a*\", \"b,c\"]")
        .with("ANTIPHON_CAPTURE__EXCLUDE", "x, 1")
        .with("ANTIPHON_NATS__USER_PASSWORD", "12345")
        .with("ANTIPHON_PLUGIN__BACKUP__SOURCE", "builtin:s3")
        .with("ANTIPHON_PLUGIN__BACKUP__SETTINGS__RETRIES", "007")
        .with("ANTIPHON_CONFLICT__TABLE", "[{match=a*,use=last-write-wins}]")
        .with("ANTIPHON_LOG", "debug")
        .with("HOME", "/");
    let config = case.config();
    assert_eq!(config.replication_log, ReplicationLog { shards: 4, max_entries: 9, ..ReplicationLog::default() });
    assert!(!config.publish);
    assert_eq!(config.node_id, 1);
    assert_eq!(config.db_path, Path::new("other.db"));
    assert_eq!(config.capture.include, ["a*", "b,c"]);
    assert_eq!(config.capture.exclude, ["x", "1"]);
    assert_eq!(config.nats.user_password.reveal(), "12345");
    assert_eq!(config.plugin["backup"].settings.reveal(), [("retries".to_owned(), "007".to_owned())]);
    assert_eq!(config.conflict.table[0].r#match, "a*");
}

#[test]
fn the_environment_says_when_snapshots_are_made_and_which_stay() {
    let snapshot = Case::new("db_path = 'app.db'")
        .with("ANTIPHON_SNAPSHOT__ENABLED", "false")
        .with("ANTIPHON_SNAPSHOT__LOG_THRESHOLD", "500")
        .with("ANTIPHON_SNAPSHOT__TIME_THRESHOLD_SECS", "60")
        .with("ANTIPHON_SNAPSHOT__MAX_CONCURRENT", "3")
        .with("ANTIPHON_SNAPSHOT__COMPRESSION", "gzip")
        .with("ANTIPHON_SNAPSHOT__RETENTION_COUNT", "4")
        .with("ANTIPHON_SNAPSHOT__KEEP__DAILY", "2")
        .config()
        .snapshot;
    assert!(!snapshot.enabled);
    assert_eq!((snapshot.log_threshold, snapshot.time_threshold_secs, snapshot.max_concurrent), (500, 60, 3));
    assert_eq!((snapshot.compression.as_str(), snapshot.retention_count, snapshot.keep.daily), ("gzip", 4, 2));
}

#[test]
fn variables_are_refused_by_their_own_name() {
    let refused = |name, value| first_line(&Case::new("db_path = 'a'").with(name, value).refusal()).to_owned();
    assert_eq!(
        refused("ANTIPHON_REPLICATION_LOG__SHARD", "4"),
        "unknown environment variable `ANTIPHON_REPLICATION_LOG__SHARD`; did you mean `ANTIPHON_REPLICATION_LOG__SHARDS`?"
    );
    assert_eq!(
        refused("ANTIPHON_SHARDS", "4"),
        "unknown environment variable `ANTIPHON_SHARDS`; did you mean `ANTIPHON_REPLICATION_LOG__SHARDS`?"
    );
    assert_eq!(
        refused("ANTIPHON_REPLICATION_LOG__SHARDS", "four"),
        "the environment variable `ANTIPHON_REPLICATION_LOG__SHARDS` must be a whole number, found the text `four`"
    );
    assert_eq!(
        refused("ANTIPHON_REPLICATION_LOG__SHARDS", "0"),
        "environment variable `ANTIPHON_REPLICATION_LOG__SHARDS`: `replication_log.shards` must be from 1 to 1024, found 0"
    );
    assert_eq!(
        refused("ANTIPHON_NATS", "x"),
        "the environment variable `ANTIPHON_NATS` must be a table, found the text `x`"
    );
}

#[test]
fn paths_of_the_file_are_relative_to_the_file() {
    let case = Case::new(
        "db_path = 'data/app.db'\nseq_map_path = '/abs/seq'\n[log]\npath = 'log'\n[nats]\nca_file = 'ca.pem'\n\
         [plugin.x]\nsource = 'file:x.wasm'\nsha256 = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'",
    );
    let folder = case.folder.path();
    let config = case.config();
    assert_eq!(config.db_path, folder.join("data/app.db"));
    assert_eq!(config.seq_map_path, Path::new("/abs/seq"));
    assert_eq!(config.log.path, folder.join("log"));
    assert_eq!(config.nats.ca_file, folder.join("ca.pem"));
    assert_eq!(config.nats.seed_file, PathBuf::new());
    assert_eq!(config.plugin["x"].source, format!("file:{}", folder.join("x.wasm").display()));
}

#[test]
fn flags_override_all_else() {
    let case = Case::new("db_path = 'app.db'\nnode_id = 1\n[log]\npath = 'log'");
    let loaded = Config::load(Sources {
        file: Some(case.folder.path().join("antiphon.toml")),
        environment: Environment::of([("ANTIPHON_NODE_ID", "2")]),
        overrides: Overrides {
            db_path: Some("f.db".into()),
            node_id: Some(u64::MAX),
            log_path: Some("flog".into()),
            ..Overrides::default()
        },
    });
    let config = loaded.unwrap().config;
    assert_eq!((config.node_id, config.db_path, config.log.path), (u64::MAX, "f.db".into(), "flog".into()));
}

#[test]
fn debug_shows_no_secret() {
    let case = Case::new(
        "db_path = 'a'\n[nats]\nuser_password = 'hunter2'\n[snapshot.s3]\nsecret = 'hunter2'\nsession_token = 'hunter2'\n\
         access_key = 'hunter2'\n[snapshot.webdav]\nurl = 'https://h/?secret=hunter2'\n[snapshot.sftp]\n\
         url = 'sftp://u:hunter2@h'\n[plugin.x]\nsource = 'builtin:s3'\nsettings = { secret_key = 'hunter2' }",
    )
    .with("ANTIPHON_NATS__USER_PASSWORD", "hunter2");
    let loaded = case.load().unwrap();
    assert!(!format!("{loaded:?}").contains("hunter2"));
    assert!(!toml::to_string(&loaded.config).unwrap().contains("hunter2"));
    assert!(!format!("{:?}", Environment::of(case.variables)).contains("hunter2"));
}

/// A section that says anything and names no servers asks for one; what `init` writes says nothing.
#[test]
fn a_server_is_started_where_none_is_named() {
    for (text, starts) in [
        ("", false),
        ("[nats]", false),
        ("[nats]\nurls = []", false),
        ("[nats]\nurls = ['nats://h']\nbind_address = '0.0.0.0:4222'", false),
        ("[nats]\nbind_address = '0.0.0.0:4222'", true),
        ("[nats]\nurls = []\nsubject_prefix = 'x'", true),
        ("[nats]\nstart_server = true", true),
        ("[nats]\nstart_server = false\nsubject_prefix = 'x'", false),
    ] {
        assert_eq!(Case::new(&format!("db_path = 'a'\n{text}")).config().nats.start_server, starts, "{text}");
    }
    let case = Case::new("db_path = 'a'").with("ANTIPHON_NATS__BIND_ADDRESS", "127.0.0.1:-1");
    assert!(case.config().nats.start_server);
}

#[test]
fn a_server_of_ones_own_and_others_are_two_things() {
    assert_eq!(
        first_line(&refused("[nats]\nurls = ['nats://h']\nstart_server = true")),
        "configuration `antiphon.toml`: `nats.start_server` and `nats.urls` are both set"
    );
    let peers = refused("[nats]\ncluster_peers = ['nats://h:1']");
    assert!(peers.contains("`nats.cluster_addr` is not set"), "{peers}");
    let half = refused("[nats]\ncert_file = 'a'");
    assert!(half.contains("`nats.cert_file` and `nats.key_file` belong together"), "{half}");
}
