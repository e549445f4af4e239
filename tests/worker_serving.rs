//! Applications without a framework.

use hyper::Request;

use crate::setup::Setup;

#[test]
fn a_plain_tower_service_is_served_and_names_its_routes() {
    let server = Setup::of_example("tower").args(["--workers", "1"]).start();
    let answer = server.send(Request::post("/count").body("hello").unwrap());
    assert_eq!(answer.expect_status(200).text(), "5 bytes\n");
    assert_eq!(server.access_line(answer.request_id()).get("route"), "/count");
    let answer = server.get("/other");
    let line = server.access_line(answer.expect_status(404).request_id());
    assert_eq!(line.get("route"), "unmatched");
    assert_eq!(server.stop(), 0);
}
