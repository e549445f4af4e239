//! The RealWorld project's own collection of requests, run by newman.
//!
//! The gate is what was executed: a server that answers 404 everywhere reports no failed request, and few assertions.

use std::process::Command;

use serde_json::Value;

use crate::app::database::each;
use crate::app::tools;

#[test]
fn the_collection_of_realworld_passes_in_full() {
    let Some(newman) = tools::find("newman", &["target/tools/newman/node_modules/.bin"]) else {
        return;
    };
    each(|database| {
        let server = database.setup().start();
        let folder = tempfile::TempDir::new().unwrap();
        let report = folder.path().join("report.json");
        let id = server.supervisor();
        let mut run = Command::new(&newman);
        run.arg("run").arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/corpus/conduit/Conduit.postman_collection.json"
        ));
        run.args(["--delay-request", "5", "--reporters", "json", "--reporter-json-export"])
            .arg(&report);
        for variable in [
            format!("APIURL=http://{}/api", server.address()),
            format!("USERNAME=u{id}"),
            format!("EMAIL=u{id}@mail.com"),
            "PASSWORD=password".to_owned(),
        ] {
            run.args(["--global-var", &variable]);
        }
        let output = run.output().unwrap();
        let text =
            std::fs::read_to_string(&report).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let report: Value = serde_json::from_str(&text).unwrap();
        let stats = &report["run"]["stats"];
        let count = |what: &str| {
            (stats[what]["total"].as_u64().unwrap(), stats[what]["failed"].as_u64().unwrap())
        };
        let failures: Vec<_> = report["run"]["failures"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|failure| {
                format!("{}: {}", failure["source"]["name"], failure["error"]["message"])
            })
            .collect();
        assert_eq!(count("requests").0, 32, "{failures:#?}");
        assert_eq!(count("assertions"), (311, 0), "{failures:#?}");
        assert_eq!(count("testScripts").1, 0, "{failures:#?}");
        assert!(output.status.success());
    });
}
