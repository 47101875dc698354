//! How a node says that it is, asked over HTTP while it runs.

use crate::http::get;
use crate::process::{Site, eventually};
use serde_json::Value;
use std::net::SocketAddr;

/// Has a site serve all there is, at one address of its own.
pub fn serving(site: Site) -> Site {
    site.with("ANTIPHON_HEALTH_CHECK__ENABLE", "true")
        .with("ANTIPHON_HEALTH_CHECK__BIND", "127.0.0.1:0")
        .with("ANTIPHON_PROMETHEUS__ENABLE", "true")
        .with("ANTIPHON_PROMETHEUS__BIND", "127.0.0.1:0")
}

/// Where it said that it serves this.
#[track_caller]
pub fn at(site: &Site, what: &str) -> SocketAddr {
    let said = site.said();
    let line = said.lines().find(|line| line.trim_start().starts_with(&format!("{what} "))).unwrap();
    let address = line.split_once("http://").unwrap().1;
    address.split('/').next().unwrap().parse().unwrap()
}

/// Names of the reasons for which a node is not well.
pub fn reasons(health: &Value) -> Vec<String> {
    let reasons = health["reasons"].as_array().unwrap().iter();
    reasons.map(|reason| reason["name"].as_str().unwrap().to_owned()).collect()
}

/// Waits until a node gives a reason of this name for being unwell, with a remedy; gives what is wrong by its words.
#[track_caller]
pub fn is_unwell(site: &Site, name: &str) -> String {
    let health = at(site, "health");
    let mut what = String::new();
    eventually(&format!("`{name}` is a reason"), || {
        let answer = get(health, "/health");
        let found = answer.json();
        let reason = found["reasons"].as_array().unwrap().iter().find(|reason| reason["name"] == name);
        let Some(reason) = reason else { return false };
        assert_eq!((answer.status, found["status"].as_str()), (503, Some("unhealthy")));
        assert!(reason["remedy"].as_str().unwrap().len() > 10 && reason["since"].is_string(), "{reason}");
        what = reason["what"].as_str().unwrap().to_owned();
        true
    });
    assert_eq!(get(health, "/livez").status, 200, "a new process would be no better");
    what
}

/// Waits until a node is well, and ready.
#[track_caller]
pub fn is_well(site: &Site) {
    let health = at(site, "health");
    let mut last = String::new();
    eventually("it is well", || {
        let answer = get(health, "/health");
        let reasons = answer.json()["reasons"].to_string();
        if reasons != last {
            eprintln!("why {health} is not well: {reasons}");
            last = reasons;
        }
        answer.status == 200 && get(health, "/readyz").status == 200
    });
}
