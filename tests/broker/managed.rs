//! A NATS server that a node starts itself.

use crate::site::{count, place, replicates, site, start, status};
use antiphon_harness::{Broker, Place, Signal, Site, eventually, network_apart, settled};
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;

/// The lines that have a server started.
fn own(more: &str) -> String {
    format!("nats_server = '{}'\n{more}", Broker::program().display())
}

/// The server's process, by the file it wrote where it listens.
fn server(site: &Site) -> u32 {
    let ports = || -> Option<PathBuf> {
        let files = std::fs::read_dir(site.state().join("nats")).ok()?.filter_map(Result::ok).map(|file| file.path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "ports")).last()
    };
    let name = ports().unwrap().file_stem().unwrap().to_str().unwrap().to_owned();
    name.rsplit('_').next().unwrap().parse().unwrap()
}

fn is_alive(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // One that ended and was not asked after yet is gone.
    state.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// Where the server of a node listens.
fn address(site: &Site) -> String {
    std::fs::read_to_string(site.state().join("nats/address")).unwrap().trim().to_owned()
}

/// A port that is free now.
fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One node starts a server, another uses it; what was written is there when both come again.
#[test]
fn a_node_starts_a_server_and_ends_it() {
    let place = place();
    let mut a = site(&place, "a", "", &own(""));
    start(&mut a);
    let (pid, url) = (server(&a), address(&a));
    assert!(url.starts_with("nats://127.0.0.1:"), "{url}");
    assert!(a.said().contains(&format!("{url} (started here)")), "{}", a.said());
    let mut b = site(&place, "b", "", &format!("urls = ['{url}']"));
    start(&mut b);
    replicates(&a, &b, 1);
    eventually("it is in step", || status(&place, "a")["verdict"] == "in_step");
    let config = std::fs::metadata(a.state().join("nats/server.conf")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&config.permissions()) & 0o777, 0o600);
    // X09: nobody else is let in who does not ask on this machine.
    let text = std::fs::read_to_string(a.state().join("nats/server.conf")).unwrap();
    assert!(text.contains("listen: \"127.0.0.1:") && text.contains("http: \"127.0.0.1:-1\""), "{text}");
    a.term();
    assert!(!is_alive(pid), "the server outlives its node");
    a.sql("INSERT INTO t VALUES (2, 'while nothing runs')");
    start(&mut a);
    assert_ne!(server(&a), pid);
    eventually("it is in the log", || a.is_quiet());
}

/// X09: seen from another address of the machine, nothing is open of all that a node serves where no address was said:
/// health, figures, and a NATS server of its own. In a network of their own there is nobody else whose ports these could be.
#[test]
fn x09_nothing_is_open_to_other_machines() {
    const ADDRESS: &str = "10.9.9.9";
    let Some(_) = network_apart(ADDRESS) else { return };
    let place = place();
    let mut a = site(&place, "a", "", &own("[health_check]\nenable = true\n[prometheus]\nenable = true"));
    start(&mut a);
    a.wait_for_words("  metrics  http");
    let mut open = Vec::new();
    for (table, listens) in [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")] {
        let text = std::fs::read_to_string(format!("/proc/net/{table}")).unwrap();
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (address, port) = words[1].split_once(':').unwrap();
            if words[3] == listens {
                let is_loopback = address == "0100007F" || address == "00000000000000000000000001000000";
                assert!(is_loopback, "{table} {}", words[1]);
                open.push(u16::from_str_radix(port, 16).unwrap());
            }
        }
    }
    // Two pages, the server, and what that tells of itself.
    assert!(open.len() >= 4 && open.contains(&8090) && open.contains(&3010), "{open:?}");
    for port in open {
        let refused = TcpStream::connect((ADDRESS, port)).map(|_| ()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "port {port}");
        TcpStream::connect(("127.0.0.1", port)).unwrap();
    }
}

/// However the host ends, its server ends with it.
#[test]
fn the_server_dies_with_a_host_that_is_killed() {
    let place = place();
    let mut a = site(&place, "a", "", &own(""));
    start(&mut a);
    let pid = server(&a);
    assert!(is_alive(pid));
    a.kill9();
    eventually("it dies", || !is_alive(pid));
    // Between the start of the process and the moment it becomes the server, too.
    for _ in 0..5 {
        a.spawn();
        std::thread::sleep(std::time::Duration::from_millis(150));
        a.kill9();
        let folder = a.state().join("nats").display().to_string();
        eventually("nothing is left", || processes_of(&folder).is_empty());
    }
}

/// Processes that were told of this folder.
fn processes_of(folder: &str) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let told = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&told).contains(folder) && is_alive(*pid)
        })
        .collect()
}

/// A server that ends is started again where it was, and nothing is lost.
#[test]
fn a_server_that_ends_is_started_again() {
    let place = place();
    let mut a = site(&place, "a", "", &own(""));
    start(&mut a);
    let (pid, url) = (server(&a), address(&a));
    let mut b = site(&place, "b", "", &format!("urls = ['{url}']"));
    start(&mut b);
    replicates(&a, &b, 1);
    let raw = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(raw, Signal::KILL).unwrap();
    a.sql("INSERT INTO t VALUES (2, 'meanwhile')");
    a.wait_for_words("the NATS server ended, starting it again");
    eventually("it goes on", || count(&b) == "2");
    replicates(&b, &a, 3);
    assert_eq!(address(&a), url);
    settled(&[&a, &b]);
}

/// Without the program, the error says how to get it; with one that is none, too.
#[test]
fn without_the_program_it_is_said_how_to_get_it() {
    let place = place();
    let mut a = site(&place, "a", "", "bind_address = '127.0.0.1:-1'").with("PATH", "/nowhere");
    let ended = a.refused();
    ended.expect(66, &["there is no `nats-server`", "github.com/nats-io/nats-server/releases", "`nats_server = "]);
    let mut b = site(&place, "b", "", "nats_server = '/nowhere/nats-server'");
    b.refused().expect(66, &["`nats.nats_server` names no program: `/nowhere/nats-server`"]);
    let mut c = site(&place, "c", "", "start_server = true")
        .with("PATH", Broker::program().canonicalize().unwrap().parent().unwrap().to_str().unwrap());
    start(&mut c);
}

/// The user's own configuration has the last word, and what is wrong with it is said in the server's words.
#[test]
fn the_users_own_configuration_counts() {
    let place = place();
    let port = free();
    place.file("own.conf", &format!("listen: \"127.0.0.1:{port}\"\nmax_payload: 200000\n"));
    let mut a = site(&place, "a", "", &own("server_config = 'own.conf'"));
    start(&mut a);
    assert_eq!(address(&a), format!("nats://127.0.0.1:{port}"));
    a.sql("INSERT INTO t VALUES (1, randomblob(1000000))");
    eventually("it is sent in parts", || a.is_quiet());
    place.file("bad.conf", "no_such_setting { x: 1 }\nlisten: \"127.0.0.1:99999999\"\n");
    let mut b = site(&place, "b", "", &own("server_config = 'bad.conf'"));
    b.refused().expect(64, &["the NATS server does not start: ", "server.conf"]);
}

/// A login of the configuration is the server's as well.
#[test]
fn x09_a_login_is_asked_for_if_one_is_set() {
    let place = place();
    let name = "user_name = 'bob'";
    let with_password = |site: Site| site.with("ANTIPHON_NATS__USER_PASSWORD", "canary-pa\"ss");
    let mut a = with_password(site(&place, "a", "", &own(name)));
    start(&mut a);
    let url = address(&a);
    let mut b = with_password(site(&place, "b", "", &format!("urls = ['{url}']\n{name}")));
    start(&mut b);
    replicates(&a, &b, 1);
    let mut c = site(&place, "c", "", &format!("urls = ['{url}']"));
    c.spawn();
    c.wait_for_words("no NATS server can be reached; waiting");
}

fn of_three(place: &Place, name: &str, ports: [u16; 3], mine: usize, flags: bool) -> Site {
    let peers: Vec<String> = ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
    let address = format!("127.0.0.1:{}", ports[mine]);
    let settings = if flags {
        String::new()
    } else {
        let peers: Vec<String> = peers.iter().map(|peer| format!("'{peer}'")).collect();
        format!("cluster_addr = '{address}'\ncluster_peers = [{}]", peers.join(", "))
    };
    let replicas = "[replication_log]\nreplicas = 3";
    let site = site(place, name, "", &own(&format!("{settings}\n{replicas}")));
    if !flags {
        return site;
    }
    let config = place.path(&format!("{name}.toml"));
    // As HarmonyLite's users type them.
    let peers = peers.join(",");
    site.arguments(["-config", config.to_str().unwrap(), "-cluster-addr", &address, "-cluster-peers", &peers])
}

/// Three nodes that nobody prepared anything for become a cluster, and one server may be lost.
#[test]
fn three_nodes_form_a_cluster_from_nothing() {
    let place = place();
    let ports = [free(), free(), free()];
    let mut a = of_three(&place, "a", ports, 0, false);
    let mut b = of_three(&place, "b", ports, 1, false);
    let mut c = of_three(&place, "c", ports, 2, true);
    for site in [&mut a, &mut b, &mut c] {
        site.spawn();
    }
    for site in [&mut a, &mut b, &mut c] {
        site.wait_for_words("  log      ");
    }
    for (id, site) in [(2, &a), (3, &b), (4, &c)] {
        site.sql(&format!("INSERT INTO t VALUES ({id}, 'x')"));
    }
    eventually("all rows are everywhere", || [&a, &b, &c].iter().all(|site| count(site) == "3"));
    c.kill9();
    replicates(&a, &b, 10);
    c.sql("INSERT INTO t VALUES (11, 'alone')");
    c.spawn();
    eventually("it is back", || [&a, &b, &c].iter().all(|site| count(site) == "5"));
    settled(&[&a, &b, &c]);
}
