//! PostgreSQL over TLS: the certificate and its name are checked, and nothing goes over in the clear.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;

use crate::app::postgres::{Cluster, give_to_servant};
use crate::certificates::Authority;
use crate::setup::Setup;

#[test]
fn sslmode_require_speaks_tls_with_a_server_that_it_can_check() {
    let authority = Authority::new();
    let folder = authority.folder();
    // The server reads them as another user, and refuses a key that others may read.
    set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    let [certificate, key] = ["server.pem", "server.key"].map(|name| folder.join(name));
    set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    give_to_servant(&key);
    let certificate = format!("ssl_cert_file={}", certificate.display());
    let key = format!("ssl_key_file={}", key.display());
    let Some(cluster) = Cluster::start(["ssl=on", &certificate, &key]) else { return };
    let (name, url) = cluster.database();
    let url = url.replace("127.0.0.1", "localhost") + "?sslmode=require";

    let trusting = Setup::new().env("SSL_CERT_FILE", &authority.file());
    let server = trusting.env("DATABASE_URL", &url).start();
    server.get("/api/tags").expect_status(200);
    let sql = "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
               WHERE application_name = 'saola'";
    assert_eq!(cluster.query(&name, sql), "t");
    drop(server);

    let stranger = Authority::new();
    let doubting = Setup::new().env("SSL_CERT_FILE", &stranger.file());
    refused(doubting.env("DATABASE_URL", &url), "invalid peer certificate");
    let trusting = Setup::new().env("SSL_CERT_FILE", &authority.file());
    let by_address = url.replace("localhost", "127.0.0.1");
    refused(trusting.env("DATABASE_URL", &by_address), "not valid for name");
    let nobody = Setup::new().env("SSL_CERT_FILE", "/nonexistent");
    refused(nobody.env("DATABASE_URL", &url), "install ca-certificates or set SSL_CERT_FILE");
}

#[test]
fn sslmode_require_refuses_a_server_that_speaks_in_the_clear_only() {
    let Some(cluster) = Cluster::start(["ssl=off"]) else { return };
    let authority = Authority::new();
    let trusting = Setup::new().env("SSL_CERT_FILE", &authority.file());
    let url = cluster.database().1 + "?sslmode=require";
    refused(trusting.env("DATABASE_URL", &url), "server does not support TLS");
}

/// It does not start, and says why.
fn refused(setup: Setup, why: &str) {
    let ended = setup.run();
    let text = ended.stdout + &ended.stderr;
    assert_eq!(ended.code, 4, "{text}");
    assert!(text.contains(why), "{text}");
}
