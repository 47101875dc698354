//! A network that misbehaves when told to: a TCP proxy on loopback.

use crate::broker::free_port;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Bytes taken at once, and how many such pieces are on their way at most.
const PIECE: usize = 64 << 10;
const ON_THEIR_WAY: usize = 512;

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// They arrive.
    #[default]
    Passes,
    /// They stand still, and the connection with them, which neither end sees closed.
    Stands,
    /// They are gone. A stream that has lost some is torn, and closed as soon as anything passes again.
    Loses,
}

/// What the network does at the moment.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    /// From the client to the server.
    forth: Flow,
    /// From the server to the client.
    back: Flow,
    /// How long bytes are on their way, each way.
    delay: Duration,
    /// How many bytes pass in a second, each way.
    per_second: Option<u32>,
    /// Nobody gets through: who connects is turned away.
    closed: bool,
    /// Connections made before the last cut have an older number.
    cuts: u64,
}

#[derive(Clone, Copy)]
enum Way {
    Forth,
    Back,
}

impl Weather {
    fn flow(&self, way: Way) -> Flow {
        match way {
            Way::Forth => self.forth,
            Way::Back => self.back,
        }
    }
}

/// A proxy to one server. It ends with this object.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    weather: watch::Sender<Weather>,
    passed: Arc<AtomicU64>,
    runtime: Option<Runtime>,
}

impl Proxy {
    /// A proxy to a port on this machine.
    pub fn to(port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (weather, seen) = watch::channel(Weather::default());
        let passed = Arc::new(AtomicU64::new(0));
        let own = free_port();
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", own))).unwrap();
        runtime.spawn(listen(listener, port, seen, passed.clone()));
        Self { port: own, weather, passed, runtime: Some(runtime) }
    }

    /// Where it listens, as clients name it.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Bytes that have come through, both ways.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// What becomes of bytes to the server, and of those from it.
    pub fn flows(&self, forth: Flow, back: Flow) {
        self.weather.send_modify(|weather| (weather.forth, weather.back) = (forth, back));
    }

    /// How long bytes are on their way, each way.
    pub fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// How many bytes pass in a second, each way.
    pub fn throttle(&self, per_second: Option<u32>) {
        self.weather.send_modify(|weather| weather.per_second = per_second);
    }

    /// Closes all connections; new ones get through.
    pub fn cut(&self) {
        self.weather.send_modify(|weather| weather.cuts += 1);
    }

    /// Closes all connections, and turns new ones away.
    pub fn close(&self) {
        self.weather.send_modify(|weather| (weather.closed, weather.cuts) = (true, weather.cuts + 1));
    }

    /// All is well again.
    pub fn heal(&self) {
        self.weather.send_modify(|weather| *weather = Weather { cuts: weather.cuts, ..Weather::default() });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn listen(listener: TcpListener, port: u16, weather: watch::Receiver<Weather>, passed: Arc<AtomicU64>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        if !weather.borrow().closed {
            tokio::spawn(carry(client, port, weather.clone(), passed.clone()));
        }
    }
}

async fn carry(client: TcpStream, port: u16, weather: watch::Receiver<Weather>, passed: Arc<AtomicU64>) {
    let cuts = weather.borrow().cuts;
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
        return;
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let mut changes = weather.clone();
    tokio::select! {
        () = pump(from_client, to_server, Way::Forth, weather.clone(), &passed) => {}
        () = pump(from_server, to_client, Way::Back, weather, &passed) => {}
        _ = changes.wait_for(|weather| weather.cuts > cuts) => {}
    }
}

/// Carries bytes one way, until either end closes or the stream is torn.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: Way,
    mut weather: watch::Receiver<Weather>,
    passed: &AtomicU64,
) {
    let (send, mut receive) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THEIR_WAY);
    // What was read still passes after its end; whatever ends the writing ends all.
    let reading = async move {
        let mut piece = vec![0; PIECE];
        loop {
            let read = from.read(&mut piece).await.unwrap_or(0);
            if read == 0 || send.send((Instant::now(), piece[..read].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async {
        let mut torn = false;
        while let Some((sent, bytes)) = receive.recv().await {
            let now = *weather.borrow_and_update();
            tokio::time::sleep_until(sent + now.delay).await;
            if let Some(per_second) = now.per_second {
                tokio::time::sleep(Duration::from_secs_f64(bytes.len() as f64 / f64::from(per_second))).await;
            }
            let Ok(now) = weather.wait_for(|weather| weather.flow(way) != Flow::Stands).await.map(|now| *now) else {
                return;
            };
            if now.flow(way) == Flow::Loses {
                torn = true;
                continue;
            }
            if torn {
                return;
            }
            // Counted before they are there: whoever has them may ask at once.
            passed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = writing => {}
        () = async { reading.await; std::future::pending().await } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net;
    use std::time;

    /// A server that sends back what it gets, and a client through a proxy.
    fn echo() -> (Proxy, net::TcpStream) {
        let port = free_port();
        let listener = net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        let proxy = Proxy::to(port);
        let client = connect(&proxy);
        (proxy, client)
    }

    fn connect(proxy: &Proxy) -> net::TcpStream {
        let client = net::TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client
    }

    fn ask(mut client: &net::TcpStream) -> std::io::Result<[u8; 5]> {
        client.write_all(b"hello")?;
        let mut answer = [0; 5];
        client.read_exact(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn bytes_pass_late_or_not_at_all_and_connections_end() {
        let (proxy, client) = echo();
        assert_eq!(ask(&client).unwrap(), *b"hello");
        assert_eq!(proxy.passed(), 10);
        proxy.delay(Duration::from_millis(30));
        let asked = time::Instant::now();
        assert_eq!(ask(&client).unwrap(), *b"hello");
        assert!(asked.elapsed() >= Duration::from_millis(60));
        proxy.heal();

        proxy.flows(Flow::Passes, Flow::Stands);
        client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert_eq!(ask(&client).unwrap_err().kind(), ErrorKind::WouldBlock);
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        proxy.heal();
        let mut late = [0; 5];
        (&client).read_exact(&mut late).unwrap();
        assert_eq!(late, *b"hello");

        proxy.flows(Flow::Passes, Flow::Loses);
        (&client).write_all(b"gone!").unwrap();
        std::thread::sleep(Duration::from_millis(100));
        proxy.heal();
        ask(&client).unwrap_err();

        let client = connect(&proxy);
        assert_eq!(ask(&client).unwrap(), *b"hello");
        proxy.cut();
        ask(&client).unwrap_err();
        assert_eq!(ask(&connect(&proxy)).unwrap(), *b"hello");
        proxy.close();
        ask(&connect(&proxy)).unwrap_err();
        proxy.heal();
        assert_eq!(ask(&connect(&proxy)).unwrap(), *b"hello");
    }
}
