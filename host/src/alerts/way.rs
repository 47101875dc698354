//! How somebody is told: a POST, or a program that gets the words on stdin.

use crate::apart::apart;
use antiphon_plugin::Post;
use serde_json::Value;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take.
const COMMAND_TIME: Duration = Duration::from_secs(30);
/// How long a server may take.
const WEBHOOK_TIME: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// How somebody is told.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// A POST.
    Webhook(Post),
    /// A program and its arguments.
    Command(Vec<String>),
}

impl Way {
    /// Its name, as the configuration has it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Command(_) => "command",
        }
    }

    /// The same with where it leads, without what may be a secret.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Webhook(post) => format!("webhook at {}", post.server()),
            Self::Command(words) => format!("command `{}`", words.first().map_or("", String::as_str)),
        }
    }

    /// Tells this.
    pub(super) async fn tell(&self, words: Value) -> Result<(), String> {
        let text = words.to_string().into_bytes();
        match self {
            Self::Webhook(post) => match tokio::time::timeout(WEBHOOK_TIME, post.send(text)).await {
                Ok(Ok(status)) if status.is_success() => Ok(()),
                Ok(Ok(status)) => Err(format!("it answered {status}")),
                Ok(Err(why)) => Err(why),
                Err(_) => Err(format!("it did not answer within {} seconds", WEBHOOK_TIME.as_secs())),
            },
            Self::Command(words) => {
                let words = words.clone();
                apart(move || run(&words, &text)).await.unwrap_or_else(|failure| Err(failure.to_string()))
            }
        }
    }
}

/// Runs a program that reads this, to its end.
fn run(words: &[String], text: &[u8]) -> Result<(), String> {
    let (program, arguments) = words.split_first().ok_or("no program is named")?;
    // What it says is talk, and stdout is for data.
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("cannot start it: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Small enough for any pipe; whoever does not read it has what it wants all the same.
        let _ = stdin.write_all(text).and_then(|()| stdin.write_all(b"\n"));
    }
    wait(&mut child)
}

fn wait(child: &mut Child) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("it ended with {status}")),
            Ok(None) if begun.elapsed() < COMMAND_TIME => std::thread::sleep(POLL),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it did not end within {} seconds", COMMAND_TIME.as_secs()));
            }
            Err(error) => return Err(format!("cannot wait for it: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_program_gets_the_words_on_stdin() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("said");
        run(&shell(&format!("cat > '{}'", file.display())), b"{}").unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap(), "{}\n");
    }

    #[test]
    fn a_program_that_fails_has_told_nobody() {
        assert_eq!(run(&shell("exit 3"), b"{}"), Err("it ended with exit status: 3".to_owned()));
        assert!(run(&["/no/such/program".to_owned()], b"{}").unwrap_err().starts_with("cannot start it: "));
        // One that reads nothing is no failure.
        run(&shell("exit 0"), &[b'x'; 1 << 20]).unwrap();
    }
}
