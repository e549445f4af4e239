//! The floor: hyper, a pool of connections, prepared statements, and the same answers.

use std::convert::Infallible;

use bytes::Bytes;
use deadpool_postgres::{Manager, Pool};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_postgres::{NoTls, Row};

/// Serves until killed; says where in its first line.
pub(crate) fn serve(url: &str) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(async {
        let manager = Manager::new(url.parse().unwrap(), NoTls);
        let pool = Pool::builder(manager).max_size(20).build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("address={}", listener.local_addr().unwrap());
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let pool = pool.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| answer(pool.clone(), request));
                // A client that leaves ends its connection; there is nobody to tell.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

async fn answer(
    pool: Pool,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = match request.uri().path() {
        "/api/tags" => tags(&pool).await,
        _ => articles(&pool).await,
    };
    let response = Response::builder().header("content-type", "application/json");
    Ok(response.body(Full::from(body)).unwrap())
}

#[derive(Serialize)]
struct Tags {
    tags: Vec<String>,
}

async fn tags(pool: &Pool) -> Vec<u8> {
    let client = pool.get().await.unwrap();
    let statement =
        client.prepare_cached("SELECT DISTINCT tag FROM conduit_article_tags").await.unwrap();
    let rows = client.query(&statement, &[]).await.unwrap();
    let mut tags: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    tags.sort_unstable();
    serde_json::to_vec(&Tags { tags }).unwrap()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Articles {
    articles: Vec<Article>,
    articles_count: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Article {
    slug: String,
    title: String,
    description: String,
    tag_list: Vec<String>,
    created_at: String,
    updated_at: String,
    favorited: bool,
    favorites_count: i64,
    author: Author,
}

#[derive(Serialize)]
struct Author {
    username: String,
    bio: Option<String>,
    image: Option<String>,
    following: bool,
}

async fn articles(pool: &Pool) -> Vec<u8> {
    let client = pool.get().await.unwrap();
    let (list, count) = tokio::join!(client.prepare_cached(LIST), client.prepare_cached(COUNT));
    let rows = client.query(&list.unwrap(), &[&0_i64, &20_i64, &0_i64]).await.unwrap();
    let count = client.query_one(&count.unwrap(), &[]).await.unwrap();
    let articles = rows.iter().map(article).collect();
    serde_json::to_vec(&Articles { articles, articles_count: count.get(0) }).unwrap()
}

fn article(row: &Row) -> Article {
    let time = |at| {
        let timestamp = jiff::Timestamp::from_microsecond(row.get(at)).unwrap();
        format!("{timestamp:.6}")
    };
    Article {
        slug: row.get(0),
        title: row.get(1),
        description: row.get(2),
        tag_list: serde_json::from_str(row.get(4)).unwrap(),
        created_at: time(5),
        updated_at: time(6),
        favorited: row.get(7),
        favorites_count: row.get(8),
        author: Author {
            username: row.get(9),
            bio: row.get(10),
            image: row.get(11),
            following: row.get(12),
        },
    }
}

/// The statements of `src/conduit/articles/queries.rs`, for a list without a filter.
const LIST: &str = "SELECT a.slug, a.title, a.description, CAST(NULL AS TEXT), a.tag_list, a.created_at, a.updated_at, \
    EXISTS (SELECT 1 FROM conduit_favorites v WHERE v.user_id = $1 AND v.article_id = a.id), \
    (SELECT count(*) FROM conduit_favorites v WHERE v.article_id = a.id), \
    u.username, u.bio, u.image, \
    EXISTS (SELECT 1 FROM conduit_follows f WHERE f.follower_id = $1 AND f.followee_id = u.id) \
    FROM conduit_articles a JOIN conduit_users u ON u.id = a.author_id WHERE \
    a.id > 0 ORDER BY a.id DESC LIMIT $2 OFFSET $3";
const COUNT: &str = "SELECT count(*) FROM conduit_articles a WHERE a.id > 0";
