//! The envelope around every answer: `{success, result, errors, messages}`, and the
//! answers that come without one (empty, `{code, error}`, a challenge page in HTML).

use serde_json::Value;

use crate::http::Reply;

use super::Refusal;

/// The result, or the refusal.
pub(super) fn read(reply: &Reply, text: &str) -> Result<Value, Refusal> {
    let ray = reply.header("cf-ray").map(str::to_owned);
    if reply
        .header("cf-mitigated")
        .is_some_and(|what| what.contains("challenge"))
    {
        return Err(Refusal {
            code: 0,
            status: reply.status,
            message: "it asks for a browser challenge; its firewall takes us for a robot"
                .to_owned(),
            ray,
        });
    }
    parse(reply.status, text).map_err(|refusal| Refusal { ray, ..refusal })
}

/// Whether the text of a failed answer has a code that no waiting mends.
pub(super) fn is_hopeless(text: &str) -> bool {
    parse(400, text).is_err_and(|refusal| refusal.is_final())
}

fn parse(status: u16, text: &str) -> Result<Value, Refusal> {
    let fine = (200..300).contains(&status);
    if fine && text.trim().is_empty() {
        return Ok(Value::Null);
    }
    let Ok(mut value) = serde_json::from_str::<Value>(text) else {
        return Err(refusal(status, 0, &line(text)));
    };
    if fine && value["success"] != false {
        return Ok(value["result"].take());
    }
    let error = &value["errors"][0];
    let code = number(&error["code"])
        .or_else(|| number(&value["code"]))
        .unwrap_or(0);
    let said = [&error["message"], &value["error"], &value["message"]];
    let said = said.iter().find_map(|said| said.as_str());
    Err(refusal(status, code, said.unwrap_or("it gives no reason")))
}

/// Codes come as numbers and as texts.
fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn refusal(status: u16, code: i64, message: &str) -> Refusal {
    Refusal {
        code,
        status,
        message: message.chars().take(300).collect(),
        ray: None,
    }
}

/// The first line that is not a tag.
fn line(text: &str) -> String {
    let mut lines = text.lines().map(str::trim);
    let plain = lines.find(|line| !line.is_empty() && !line.starts_with('<'));
    plain.unwrap_or("something that is not JSON").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_every_shape() {
        let ok = parse(
            200,
            r#"{"success":true,"result":{"id":"x"},"errors":[],"messages":[]}"#,
        );
        assert_eq!(ok.expect("a result")["id"], "x");
        assert_eq!(parse(204, "").expect("nothing"), Value::Null);
        for (status, text, code, message) in [
            (
                400,
                r#"{"success":false,"errors":[{"code":3000,"message":"name taken"}],"result":null}"#,
                3000,
                "name taken",
            ),
            (
                200,
                r#"{"success":false,"errors":[{"code":"3039","message":"files"}]}"#,
                3039,
                "files",
            ),
            (
                401,
                r#"{"code":10000,"error":"Authentication error"}"#,
                10000,
                "Authentication error",
            ),
            (
                403,
                "<html>\n<body>\nAttention Required!\n",
                0,
                "Attention Required!",
            ),
            (502, "", 0, "something that is not JSON"),
            (500, "{}", 0, "it gives no reason"),
        ] {
            let refusal = parse(status, text).expect_err(text);
            assert_eq!(
                (refusal.status, refusal.code, refusal.message.as_str()),
                (status, code, message)
            );
        }
    }

    #[test]
    fn some_codes_are_not_worth_waiting_for() {
        let answer =
            |code: i64| format!(r#"{{"success":false,"errors":[{{"code":{code},"message":""}}]}}"#);
        for (code, hopeless) in [
            (3036, true),
            (5005, true),
            (3037, true),
            (10429, false),
            (3040, false),
        ] {
            assert_eq!(is_hopeless(&answer(code)), hopeless, "{code}");
        }
        assert!(!is_hopeless("busy"));
    }
}
