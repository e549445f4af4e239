//! A number of requests through one connection in memory, in one process and one thread: for counting instructions.
//!
//! `in_process [browser-]hyper|off|metrics|full NUMBER`: requests of one field, or of as many as a browser sends. Valgrind knows no process descriptors, so a whole server cannot be counted.

use std::convert::Infallible;

use anyhow::bail;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use saola_observability::{Detail, Slot};
use saola_worker::{Config, Hooks, Injected, Shutdown, Speech};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::{Builder, LocalOptions};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, number] = arguments.as_slice() else {
        bail!("usage: in_process [browser-]hyper|off|metrics|full NUMBER");
    };
    let (target, request) = match target.strip_prefix("browser-") {
        Some(target) => (target, BROWSER),
        None => (target.as_str(), PLAIN),
    };
    let detail = match target {
        "hyper" => None,
        "off" => Some(Detail::Nothing),
        "metrics" => Some(Detail::Counts),
        "full" => Some(Detail::Full),
        _ => bail!("no such target: {target}"),
    };
    let number: u32 = number.parse()?;
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let (client, server) = tokio::io::duplex(64 * 1024);
        match detail {
            None => tokio::task::spawn_local(bare(server)),
            Some(detail) => tokio::task::spawn_local(worker(server, detail)),
        };
        ask(client, request, number).await
    })
}

async fn bare(server: DuplexStream) {
    // It ends when the client has what it wants.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(server), service_fn(hello)).await;
}

async fn worker(server: DuplexStream, detail: Detail) {
    let slot = Slot::in_memory();
    slot.in_flight().set_detail(detail);
    let (streams, source) = Injected::channel(Speech::default());
    let (_orders, shutdown) = Shutdown::channel();
    // The source is open: it is there.
    let _ = streams.send(server);
    let config = Config {
        seed: Some(7),
        trace_rate_limit: 0,
        keepalive_requests: std::num::NonZeroU32::MAX,
        ..Config::default()
    };
    let service = tower::service_fn(hello);
    let served =
        saola_worker::serve(source, service, slot, config, Hooks::default(), shutdown).await;
    if let Err(error) = served {
        eprintln!("error: {error}");
    }
}

async fn hello<B>(_: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::from("Hello, world!"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

const PLAIN: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
const BROWSER: &str = concat!(
    "GET /?page=2&sort=price HTTP/1.1\r\n",
    "Host: shop.example.com\r\n",
    "Connection: keep-alive\r\n",
    "Cache-Control: max-age=0\r\n",
    "sec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\", \"Google Chrome\";v=\"140\"\r\n",
    "sec-ch-ua-mobile: ?0\r\n",
    "sec-ch-ua-platform: \"Linux\"\r\n",
    "Upgrade-Insecure-Requests: 1\r\n",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n",
    "Sec-Fetch-Site: same-origin\r\n",
    "Sec-Fetch-Mode: navigate\r\n",
    "Referer: https://shop.example.com/?page=1&sort=price\r\n",
    "Accept-Encoding: gzip, deflate, br, zstd\r\n",
    "Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n",
    "Cookie: session=4f2c9a17e0b84d6c9d3e5a7b1c8f0e2d; theme=dark; _ga=GA1.1.1290381234.1763712000; consent=all\r\n",
    "\r\n",
);

async fn ask(mut client: DuplexStream, request: &str, number: u32) -> anyhow::Result<()> {
    let mut answer = [0; 4_096];
    for _ in 0..number {
        client.write_all(request.as_bytes()).await?;
        let mut length = 0;
        while !answer.get(..length).is_some_and(|answer| answer.ends_with(b"Hello, world!")) {
            let read = client.read(answer.get_mut(length..).unwrap_or_default()).await?;
            if read == 0 {
                bail!("the server closed the connection");
            }
            length += read;
        }
    }
    Ok(())
}
