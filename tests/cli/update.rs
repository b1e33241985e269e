//! `update`: what a source is now, from a hub on this machine.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::project::Project;

/// A hub with one data set of one file; its commit is what the test says.
struct Hub {
    url: String,
    commit: Arc<Mutex<String>>,
}

impl Hub {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let commit = Arc::new(Mutex::new("1".repeat(40)));
        let now = Arc::clone(&commit);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let request = lines.next().unwrap_or_default();
                let _rest = lines.find(String::is_empty);
                let commit = now.lock().expect("nobody panics").clone();
                let rows = format!("{{\"commit\":\"{commit}\"}}\n");
                let body = if request.contains("/api/datasets/o/d/revision/") {
                    format!(
                        r#"{{"id":"o/d","sha":"{commit}","siblings":[{{"rfilename":"rows.jsonl","size":{}}}],"tags":["license:apache-2.0"]}}"#,
                        rows.len()
                    )
                } else {
                    rows
                };
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _gone = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        Self { url, commit }
    }
}

#[test]
fn an_update_pins_what_a_source_is_now() {
    let hub = Hub::new();
    let project = Project::new(
        r"
name: demo
stages:
  rows:
    uses: fetch
    with: { dataset: o/d, files: [rows.jsonl], licenses: [apache-2.0] }
  old:
    run: echo > ${outputs.it}
    outputs: { it: it }
",
    );
    let run = |args: &[&str]| {
        let mut command = project.command(args);
        command
            .env("HF_ENDPOINT", &hub.url)
            .env("HF_HOME", project.at("hf"));
        command.env_remove("HF_TOKEN");
        let output = command.output().expect("it starts");
        project.page(&output)
    };
    let said = run(&["run"]);
    assert!(said.starts_with("exit 0"), "{said}");
    let (one, two) = ("1".repeat(40), "2".repeat(40));
    assert!(project.read("pipeline.lock").contains(&one));

    // The source moves, and nobody asked: the pin holds.
    hub.commit.lock().expect("nobody panics").clone_from(&two);
    assert!(run(&["run"]).contains("up to date"));
    project.edit("pipeline.yaml", "  old:", "  new:");
    let said = run(&["update", "--json"]);
    assert_eq!(
        said,
        format!(
            "exit 0\n----- stdout -----\n{{\"stage\":\"rows\",\"source\":\"hf:dataset/o/d@main\",\"old\":\"{one}\",\"new\":\"{two}\"}}\n"
        )
    );
    let lock = project.read("pipeline.lock");
    assert!(lock.contains(&two) && !lock.contains(&one), "{lock}");
    assert!(!lock.contains("result.default.old"), "{lock}");
    let said = run(&["update", "rows"]);
    assert!(said.contains("hf:dataset/o/d@main: still 2222"), "{said}");
    assert!(run(&["update", "new"]).contains("update::nothing"));
}
