//! The corpus of raw requests, in process: whole, byte by byte, and split at every offset.

use tokio::io::AsyncWriteExt;

use super::{Client, Server, config, test};
use crate::Config;

#[path = "../../../tests/corpus.rs"]
mod rows;

use rows::Row;

#[test]
fn every_row_whole() {
    run(|_| vec![Vec::new()]);
}

#[test]
fn every_row_byte_by_byte() {
    run(Row::bytewise);
}

#[test]
fn every_row_split_at_every_offset() {
    run(Row::splits);
}

/// Sends each row in each way that `ways` names, and looks at what comes back.
fn run(ways: fn(&Row) -> Vec<Vec<usize>>) {
    let forever = std::num::NonZeroU32::MAX;
    test(Config { keepalive_requests: forever, ..config() }, |server| async move {
        let rows = rows::all();
        assert!(rows.len() >= 150, "{}", rows.len());
        let mut wrong = Vec::new();
        for row in &rows {
            for cuts in ways(row) {
                let answers = exchange(&server, row, &cuts).await;
                if let Err(found) = row.check(&answers) {
                    wrong.push(format!("{} cut at {cuts:.3?}: {found}", row.name));
                    break;
                }
            }
        }
        assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
        server.stop().await;
    });
}

async fn exchange(server: &Server, row: &Row, cuts: &[usize]) -> Vec<u8> {
    let Client(mut stream) = server.connect();
    for part in row.parts(cuts) {
        // A refusal may have closed the stream already.
        let _closed = stream.write_all(part).await;
        // The server has its turn, so that it sees the parts one by one.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }
    let _closed = stream.shutdown().await;
    Client(stream).rest().await
}
