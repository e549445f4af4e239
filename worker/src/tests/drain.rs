//! The lame duck, and the ends of a drain.

use std::time::Duration;

use saola_observability::Outcome;
use tokio::time::Instant;

use super::{config, late, test};
use crate::{Config, Order};

const LONG: Duration = Duration::from_secs(30);

#[test]
fn an_idle_connection_answers_its_next_request_with_close() {
    test(config(), |server| async move {
        let mut client = server.connect();
        assert!(!client.get("/").await.closes());
        server.orders.give(Order::Handover { deadline: LONG, idle: LONG });
        server.until("it drains", crate::worker::Worker::is_draining).await;
        let answer = client.get("/").await;
        assert_eq!((answer.status, answer.closes()), (200, true));
        assert!(client.rest().await.is_empty());
        let drained = server.drained().await;
        assert_eq!((drained.answered, drained.forced), (1, 0));
        assert!(drained.elapsed < Duration::from_secs(1), "gone with the last connection");
    });
}

#[test]
fn idle_connections_are_closed_after_the_idle_time_of_the_order() {
    test(config(), |server| async move {
        let mut client = server.connect();
        client.get("/").await;
        let start = Instant::now();
        server.orders.give(Order::Handover { deadline: LONG, idle: Duration::from_secs(5) });
        assert!(client.rest().await.is_empty());
        assert!(late(start, 5) < Duration::from_secs(1));
        assert_eq!(server.drained().await.forced, 0);
    });
}

#[test]
fn a_stop_ends_at_once_what_a_handover_would_have_waited_for() {
    test(config(), |server| async move {
        let mut client = server.connect();
        client.get("/").await;
        server.orders.give(Order::Handover { deadline: LONG, idle: LONG });
        tokio::time::sleep(Duration::from_secs(1)).await;
        let start = Instant::now();
        server.orders.give(Order::Stop { deadline: LONG });
        assert!(client.rest().await.is_empty());
        assert!(late(start, 0) < Duration::from_millis(300));
        assert_eq!(server.drained().await.forced, 0);
    });
}

#[test]
fn stop_answers_everything_accepted_and_leaves_soon() {
    test(config(), |server| async move {
        let mut idle = server.connect();
        idle.get("/").await;
        let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n").await;
        }
        let start = Instant::now();
        server.orders.give(Order::Stop { deadline: LONG });
        for client in &mut clients {
            let answer = client.answer().await;
            assert_eq!((answer.status, answer.closes()), (200, true));
        }
        assert!(idle.rest().await.is_empty());
        let drained = server.drained().await;
        assert_eq!((drained.answered, drained.forced), (8, 0));
        assert!(start.elapsed() < Duration::from_millis(1_300), "{:?}", start.elapsed());
    });
}

#[test]
fn what_runs_at_the_deadline_is_cut_and_recorded() {
    test(config(), |server| async move {
        let mut client = server.connect();
        client.send("GET /sleep HTTP/1.1\r\nHost: a\r\n\r\n").await;
        server.until("it runs", |worker| worker.open_requests() == 1).await;
        let worker = std::rc::Rc::clone(&server.worker);
        let start = Instant::now();
        server.orders.give(Order::Handover { deadline: Duration::from_secs(3), idle: LONG });
        let drained = server.drained().await;
        assert_eq!(drained.forced, 1);
        assert!(late(start, 3) < Duration::from_millis(500));
        let record = worker.finished.borrow().last().cloned().unwrap();
        assert_eq!((record.outcome, record.exception), (Outcome::Aborted, Some("drain_deadline")));
        assert_eq!(worker.slot.in_flight().running(), 0);
    });
}

#[test]
fn quick_leaves_within_a_second() {
    test(config(), |server| async move {
        let mut client = server.connect();
        client.send("GET /sleep HTTP/1.1\r\nHost: a\r\n\r\n").await;
        server.until("it runs", |worker| worker.open_requests() == 1).await;
        let start = Instant::now();
        server.orders.give(Order::Quit);
        assert_eq!(server.drained().await.forced, 1);
        assert!(start.elapsed() < Duration::from_secs(2));
    });
}

#[test]
fn a_paused_worker_goes_on_serving_open_connections() {
    test(config(), |server| async move {
        let mut open = server.connect();
        open.get("/").await;
        server.orders.give(Order::Pause);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut waiting = server.connect();
        waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(open.get("/").await.status, 200);
        assert_eq!(server.worker.open_connections(), 1);
        server.orders.give(Order::Resume);
        assert_eq!(waiting.answer().await.status, 200);
        server.stop().await;
    });
}

#[test]
fn recycling_is_asked_for_once_and_serving_goes_on() {
    let few = Config { max_requests: 3, ..config() };
    test(few, |server| async move {
        let mut client = server.connect();
        for _ in 0..6 {
            assert_eq!(client.get("/").await.status, 200);
        }
        assert_eq!(server.recycles.get(), 1);
        server.stop().await;
    });
}

#[test]
fn streams_of_http2_that_run_at_the_deadline_are_recorded_too() {
    test(config(), |server| async move {
        let (mut client, _connection) = super::http2::connect(&server).await;
        let asked = tokio::task::spawn_local(client.send_request(super::http2::get("/sleep")));
        server.until("it runs", |worker| worker.open_requests() == 1).await;
        let worker = std::rc::Rc::clone(&server.worker);
        server.orders.give(Order::Handover { deadline: Duration::from_secs(3), idle: LONG });
        assert_eq!(server.drained().await.forced, 1);
        assert!(asked.await.unwrap().is_err());
        let record = worker.finished.borrow().last().cloned().unwrap();
        assert_eq!((record.outcome, record.exception), (Outcome::Aborted, Some("drain_deadline")));
    });
}

#[test]
fn an_answer_that_the_client_takes_slowly_is_not_cut_as_idle() {
    test(config(), |server| async move {
        let mut client = server.connect_with(1_000);
        client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
        server.until("it is answered", |worker| worker.answered.get() == 1).await;
        server.orders.give(Order::Stop { deadline: LONG });
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(client.answer().await.body.len(), 100_000);
        assert_eq!(server.drained().await.forced, 0);
    });
}

#[test]
fn without_keepalive_each_answer_closes() {
    test(Config { keepalive: Duration::ZERO, ..config() }, |server| async move {
        let mut client = server.connect();
        assert!(client.get("/second").await.closes());
        assert!(client.rest().await.is_empty());
        server.stop().await;
    });
}
