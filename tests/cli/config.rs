//! `config`, and what a configuration may say: wrong keys, types, files, the environment, secrets.

use insta::assert_snapshot;

use super::Dir;

/// The example is a configuration, and a good one.
#[test]
fn the_example_is_good() {
    let dir = Dir::new();
    let example = dir.words("config example");
    let text = example.strip_prefix("exit 0\n--- stdout\n").unwrap();
    let dir = dir.file("antiphon.toml", text);
    assert_snapshot!(dir.words("config check antiphon.toml"), @r#"
    exit 0
    --- stdout
    `antiphon.toml` is good: `app.db`, embedded log in `app.db.antiphon/log`, 1 shard
    "#);
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_name() {
    let dir = Dir::new().file("antiphon.toml", "db_path = 'app.db'\n[replication_log]\nshard = 4\n");
    assert_snapshot!(dir.words("config check antiphon.toml"), @r#"
    exit 64
    --- stderr
    error: unknown key `replication_log.shard` in `antiphon.toml`; did you mean `shards`?

    hint: see every key with `antiphon config example`
    "#);
    assert_snapshot!(dir.words("run --config antiphon.toml"), @r#"
    exit 64
    --- stderr
    error: unknown key `replication_log.shard` in `antiphon.toml`; did you mean `shards`?

    hint: see every key with `antiphon config example`
    "#);
    let dir = Dir::new().file("antiphon.toml", "db_path = 'app.db'").with("ANTIPHON_REPLICATION_LOG__SHARD", "4");
    assert_snapshot!(dir.words("config check --config antiphon.toml"), @r#"
    exit 64
    --- stderr
    error: unknown environment variable `ANTIPHON_REPLICATION_LOG__SHARD`; did you mean `ANTIPHON_REPLICATION_LOG__SHARDS`?

    hint: see every key with `antiphon config example`
    "#);
}

#[test]
fn a_wrong_type_is_refused() {
    let dir = Dir::new().file("antiphon.toml", "db_path = 'app.db'\n[replication_log]\nshards = 'four'\n");
    assert_snapshot!(dir.words("config check antiphon.toml"), @r#"
    exit 64
    --- stderr
    error: `replication_log.shards` in `antiphon.toml` must be a whole number, found the text `four`
    "#);
}

#[test]
fn a_missing_file_is_an_error() {
    assert_snapshot!(Dir::new().words("config check antiphon.toml"), @r#"
    exit 64
    --- stderr
    error: cannot read the configuration `antiphon.toml`: No such file or directory (os error 2)

    hint: write one with `antiphon init app.db`, where `app.db` is the application's database
    "#);
}

#[test]
fn the_environment_overrides_the_file() {
    let dir = Dir::new()
        .file("antiphon.toml", "db_path = 'app.db'\n[replication_log]\nshards = 2\n")
        .with("ANTIPHON_REPLICATION_LOG__SHARDS", "4");
    assert_snapshot!(dir.words("config check antiphon.toml"), @r#"
    exit 0
    --- stdout
    `antiphon.toml` is good: `app.db`, embedded log in `app.db.antiphon/log`, 4 shards
    "#);
}

#[test]
fn paths_are_relative_to_the_file_or_else_to_the_working_directory() {
    let dir = Dir::new().file("etc/antiphon.toml", "db_path = '../data/app.db'\n").with("ANTIPHON_LOG__PATH", "log");
    assert_snapshot!(dir.words("config check etc/antiphon.toml"), @r#"
    exit 0
    --- stdout
    `etc/antiphon.toml` is good: `etc/../data/app.db`, embedded log in `log`, 1 shard
    "#);
}

/// Leaving needs the database alone, whatever else the file asks for.
#[test]
fn cleanup_takes_a_file_that_names_servers() {
    let dir = Dir::new()
        .database("app.db", "CREATE TABLE t (id INTEGER PRIMARY KEY); CREATE TABLE __antiphon___meta (name, value)")
        .file("c.toml", "db_path = 'app.db'\n[nats]\nurls = ['nats://n1:4222']\n")
        .file("none.toml", "[nats]\nurls = ['nats://n1:4222']\n");
    assert_snapshot!(dir.words("cleanup --config c.toml"), @r#"
    exit 0
    --- stdout
    table __antiphon___meta
    --- stderr
    1 object removed from app.db; `[DIR]/app.db.antiphon` may go, too
    "#);
    assert_snapshot!(dir.words("cleanup --config none.toml"), @r#"
    exit 64
    --- stderr
    error: configuration `none.toml`: no database: `db_path` is not set

    hint: add `db_path = "app.db"` at the top of `none.toml`
    "#);
}

/// Without a file it is the environment that is configured.
#[test]
fn the_environment_alone_can_be_checked() {
    let dir = Dir::new().with("ANTIPHON_DB_PATH", "app.db").with("ANTIPHON_REPLICATION_LOG__SHARDS", "2");
    assert_snapshot!(dir.words("config check"), @r#"
    exit 0
    --- stdout
    the environment is good: `app.db`, embedded log in `app.db.antiphon/log`, 2 shards
    "#);
}

#[test]
fn show_hides_secrets() {
    let text = "db_path = 'app.db'\n[nats]\nuser_name = 'bob'\nuser_password = 'hunter2'\n[snapshot.s3]\n\
                access_key = 'hunter2'\nsecret = 'hunter2'\nsession_token = 'hunter2'\n[snapshot.sftp]\n\
                url = 'sftp://bob:hunter2@h:22/x'\n[snapshot.webdav]\nurl = 'https://h/?login=bob&secret=hunter2'\n\
                [plugin.backup]\nsource = 'builtin:s3'\n[plugin.backup.settings]\nregion = 'eu'\n\
                secret_key = 'hunter2'\nkey = '${file:/run/secrets/s3}'\n";
    let dir = Dir::new().file("antiphon.toml", text);
    let shown = dir.words("config show antiphon.toml");
    assert!(!shown.contains("hunter2"));
    assert_snapshot!(shown, @r#"
    exit 0
    --- stdout
    db_path = "app.db"
    node_id = 0
    publish = true
    replicate = true
    scan_max_changes = 16384
    atomic_max = 100000
    cleanup_interval = 5000
    outbox_keep = 86400000
    outbox_keep_bytes = 1073741824
    sleep_timeout = 0
    polling_interval = 0
    seq_map_path = "app.db.antiphon/seq-map.cbor"

    [replication_log]
    shards = 1
    max_entries = 1024
    node_expiry = 604800000
    log_bytes_max = "0"
    on_full = "block"
    replicas = 1
    compress = true
    update_existing = false

    [capture]
    outbox_bytes_max = 0
    outbox_on_full = "grow"
    include = []
    exclude = []

    [log]
    path = "app.db.antiphon/log"

    [hash]
    use = "fnv"

    [hash.settings]

    [conflict]
    default = "last-write-wins"
    keep = 2592000000
    table = []

    [plugin.backup]
    source = "builtin:s3"
    sha256 = ""
    on_failure = "stop"

    [plugin.backup.settings]
    key = "${file:/run/secrets/s3}"
    region = "eu"
    secret_key = "***"

    [plugin.backup.limits]
    component_bytes = "64 MiB"
    compile_seconds = 120
    compile_memory = "2 GiB"
    memory = "64 MiB"
    returned = "16 MiB"
    fuel_base = 200000000
    fuel_per_item = 500000
    fuel_per_byte = 200
    watchdog = 5000
    calls = 1000000

    [plugin.backup.grants]
    folder = ""
    http = []
    sockets = []
    private_networks = false
    ca_file = ""

    [snapshot]
    enabled = true
    interval = 0
    time_threshold_secs = 0
    log_threshold = 0
    log_bytes_threshold = "0"
    growth_threshold = "0"
    cron = ""
    incremental_interval = 900000
    incremental_threshold = 10000
    jitter = 5
    lag_max = 10000
    scratch_max = "0"
    max_concurrent = 0
    archive_bytes = "4 MiB"
    archive_entries = 10000
    archive_interval = 10000
    merge_short = 3600000
    merge_long = 86400000
    leader_ttl = 0
    store = "file"
    compression = "zstd"
    compression_level = 0
    retention_count = 0
    prune_grace = 86400000
    pitr_window = 604800000
    archive_after = 0
    verify_interval = 604800000
    parallel = 4
    memory_max = "0"
    bandwidth = "0"

    [snapshot.keep]
    last = 7
    hourly = 24
    daily = 7
    weekly = 4
    monthly = 6
    within = 0
    tags = []
    verified = 2

    [snapshot.nats]
    replicas = 1
    bucket = ""

    [snapshot.s3]
    path = ""
    endpoint = ""
    access_key = "***"
    secret = "***"
    session_token = "***"
    bucket = ""
    use_ssl = false
    region = ""
    force_path_style = true
    anonymous = false
    storage_class = ""
    archive_class = ""
    ca_file = ""
    private_networks = false

    [snapshot.webdav]
    url = "https://h/?login=***&secret=***"
    token = ""
    ca_file = ""
    private_networks = false

    [snapshot.sftp]
    url = "sftp://***@h:22/x"
    password = ""
    key_file = ""
    passphrase = ""
    agent = false
    known_hosts = ""

    [snapshot.file]
    path = "app.db.antiphon/log/snapshots"

    [nats]
    urls = []
    subject_prefix = "harmonylite-change-log"
    stream_prefix = "harmonylite-changes"
    start_server = true
    nats_server = ""
    server_config = ""
    seed_file = ""
    user_name = "bob"
    user_password = "***"
    ca_file = ""
    cert_file = ""
    key_file = ""
    cluster_addr = ""
    cluster_peers = []
    bind_address = "127.0.0.1:-1"
    require_tls = false
    nats_monitor = []
    strict_durability = false
    creds_file = ""
    connect_retries = 5
    reconnect_wait_seconds = 2

    [logging]
    verbose = false
    level = ""
    format = "console"

    [prometheus]
    enable = false
    bind = "127.0.0.1:3010"
    namespace = "harmonylite"
    subsystem = ""

    [health_check]
    enable = false
    bind = "127.0.0.1:8090"
    path = "/health"
    detailed = true
    page = true
    hosts = []
    log_grace = 30000
    lag_max = 60000
    disk_free_min = "128 MiB"
    snapshot_verified_within = 0

    [alerts]
    webhook = ""
    token = ""
    ca_file = ""
    command = []
    "#);
    let json = dir.words("config show --json --config antiphon.toml");
    assert!(!json.contains("hunter2"));
    let json = json.strip_prefix("exit 0\n--- stdout\n").unwrap();
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(json["nats"]["user_password"], "***");
    assert_eq!(json["replication_log"]["shards"], 1);
}

/// What `show` prints says the same again.
#[test]
fn what_is_shown_is_a_configuration() {
    let dir = Dir::new().file("antiphon.toml", "db_path = 'app.db'\nnode_id = 7\n[capture]\nexclude = ['a*']\n");
    let shown = dir.words("config show antiphon.toml");
    let dir = dir.file("shown.toml", shown.strip_prefix("exit 0\n--- stdout\n").unwrap());
    assert_eq!(dir.words("config show shown.toml"), shown);
}
