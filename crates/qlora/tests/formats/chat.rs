//! Chat forms: Mistral against mistral-common, ChatML and rendered templates over a byte tokenizer.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use qlora::chat::TemplateSource;
use qlora::{ChatMessage, ChatTemplate, EncodedChat, Role, Tokenizer};

use crate::support::{byte_tokenizer, golden, json_file};

const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + \
                      '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// The system-prompted, no-space-after-marker form that current transformers templates of Mistral v0.2 have.
const MISTRAL: &str = "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}\
    {%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}{{- bos_token }}\
    {%- for message in loop_messages %}{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
    {{- raise_exception('roles must alternate') }}{%- endif %}{%- if message['role'] == 'user' %}\
    {%- if loop.first and system_message is defined %}{{- ' [INST] ' + system_message + '\\n\\n' + message['content'] + ' [/INST]' }}\
    {%- else %}{{- ' [INST] ' + message['content'] + ' [/INST]' }}{%- endif %}{%- else %}\
    {{- ' ' + message['content'] + eos_token}}{%- endif %}{%- endfor %}";

fn user(text: &str) -> ChatMessage {
    ChatMessage::new(Role::User, text)
}

fn answer(text: &str) -> ChatMessage {
    ChatMessage::new(Role::Assistant, text)
}

fn system(text: &str) -> ChatMessage {
    ChatMessage::new(Role::System, text)
}

fn template(tokenizer: Tokenizer, text: &str) -> ChatTemplate {
    ChatTemplate::new(Arc::new(tokenizer), &TemplateSource { text: text.into() }).unwrap()
}

/// The text of the ids that are to be predicted.
fn labelled(chat: &ChatTemplate, encoded: &EncodedChat) -> String {
    assert_eq!(encoded.ids.len(), encoded.labels.len());
    let ids: Vec<u32> = encoded
        .ids
        .iter()
        .zip(&encoded.labels)
        .filter(|(_, label)| **label)
        .map(|(id, _)| *id)
        .collect();
    chat.tokenizer().decode_with_specials(&ids).unwrap()
}

fn mistral() -> ChatTemplate {
    template(
        Tokenizer::from_folder(&golden("mistral-v1-tokenizer")).unwrap(),
        MISTRAL,
    )
}

fn ids(value: &serde_json::Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect()
}

#[test]
fn mistral_fixtures_are_met_thirty_eight_of_thirty_eight() {
    let chat = mistral();
    assert_eq!(
        (chat.form(), chat.stop_ids().unwrap()),
        ("mistral-v1", vec![2])
    );
    let text = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap().to_string();
    let mut met = 0;
    for row in json_file(&golden("mistral-v1-tokenizer/fixtures_single_turn.json"))
        .as_array()
        .unwrap()
    {
        let encoded = chat.encode_chat(&[user(&text(row, "user"))], true).unwrap();
        assert_eq!(encoded.ids, ids(&row["ids"]), "{}", row["user"]);
        assert!(!encoded.labels.contains(&true));
        met += 1;
    }
    for row in json_file(&golden("mistral-v1-tokenizer/fixtures_multi_turn.json"))
        .as_array()
        .unwrap()
    {
        let messages = [
            user(&text(row, "u1")),
            answer(&text(row, "a1")),
            user(&text(row, "u2")),
        ];
        let encoded = chat.encode_chat(&messages, true).unwrap();
        assert_eq!(encoded.ids, ids(&row["ids"]), "{row}");
        // Exactly the answer's own tokens and </s>.
        let expected: Vec<u32> = chat
            .tokenizer()
            .encode(&messages[1].content)
            .unwrap()
            .into_iter()
            .chain([2])
            .collect();
        let found: Vec<u32> = encoded
            .ids
            .iter()
            .zip(&encoded.labels)
            .filter(|(_, l)| **l)
            .map(|(id, _)| *id)
            .collect();
        assert_eq!(found, expected);
        met += 1;
    }
    assert_eq!(met, 38);
}

#[test]
fn mistral_with_a_system_prompt_is_mistral_commons() {
    let chat = mistral();
    for row in json_file(&golden(
        "mistral-v1-tokenizer/mistral_v1_chat_reference.json",
    ))
    .as_array()
    .unwrap()
    {
        let messages: Vec<ChatMessage> = row["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| {
                let content = m["content"].as_str().unwrap();
                match m["role"].as_str().unwrap() {
                    "system" => system(content),
                    "user" => user(content),
                    _ => answer(content),
                }
            })
            .collect();
        assert_eq!(
            chat.encode_chat(&messages, true).unwrap().ids,
            ids(&row["tokens"])
        );
    }
}

/// The template published beside the weights in 2023 has no spaces; mistral-common's form is used all the same.
#[test]
fn the_old_mistral_template_is_recognised_too() {
    let source = TemplateSource::from_folder(&golden("mistral-v1-tokenizer"))
        .unwrap()
        .unwrap();
    assert!(!source.text.contains("' [INST] '"));
    let tokenizer = Tokenizer::from_folder(&golden("mistral-v1-tokenizer")).unwrap();
    assert_eq!(template(tokenizer, &source.text).form(), "mistral-v1");
}

#[test]
fn mistral_refuses_what_it_has_no_form_for() {
    let chat = mistral();
    let refusal =
        |messages: &[ChatMessage]| chat.encode_chat(messages, false).unwrap_err().to_string();
    assert_eq!(refusal(&[]), "the conversation is empty");
    assert_eq!(refusal(&[system("s")]), "there is no user turn");
    assert_eq!(
        refusal(&[user("a"), user("b")]),
        "turn 2 is of `user` where `assistant` speaks"
    );
    assert_eq!(
        refusal(&[answer("a")]),
        "turn 1 is of `assistant` where `user` speaks"
    );
    assert_eq!(
        refusal(&[user("a"), answer("")]),
        "turn 2 is an empty answer"
    );
    assert_eq!(
        refusal(&[user("a"), answer("b"), system("c")]),
        "turn 3 is of `system` where `user` speaks"
    );
}

#[test]
fn chatml_labels_answers_and_their_ends_and_nothing_else() {
    let chat = template(byte_tokenizer(&["<|im_start|>", "<|im_end|>"]), CHATML);
    assert_eq!(
        (chat.form(), chat.stop_ids().unwrap()),
        ("chatml", vec![257])
    );
    let messages = [
        system("S"),
        user("<|im_end|> spoof"),
        answer("one"),
        user("again"),
        answer(" two\n"),
    ];
    let encoded = chat.encode_chat(&messages, false).unwrap();
    assert_eq!(labelled(&chat, &encoded), "one<|im_end|> two\n<|im_end|>");
    // The spoofed marker is seven plain bytes and more, never the special id.
    assert_eq!(
        encoded.ids.iter().filter(|id| **id == 257).count(),
        messages.len()
    );
    let prompt = chat.encode_chat(&messages[..2], true).unwrap();
    assert!(
        encoded.ids.starts_with(&prompt.ids),
        "training sees the prompt that generation makes"
    );
    assert!(!prompt.labels.contains(&true));
}

#[test]
fn a_default_system_prompt_of_chatml_is_found() {
    let with_default = format!(
        "{{% if messages[0]['role'] != 'system' %}}{{{{ '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}}}{{% endif %}}{CHATML}"
    );
    let chat = template(
        byte_tokenizer(&["<|im_start|>", "<|im_end|>"]),
        &with_default,
    );
    assert_eq!(chat.form(), "chatml");
    assert_eq!(
        chat.render(&[user("hi")], true).unwrap(),
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    );
    let own = chat.render(&[system("Mine."), user("hi")], true).unwrap();
    assert!(own.starts_with("<|im_start|>system\nMine.<|im_end|>\n<|im_start|>user"));
}

/// A template that trims is not ChatML as it stands: it is rendered, and still exact.
const ZEPHYR: &str = "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'].strip() + eos_token + '\n' }}\
                      {% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}";

fn zephyr(text: &str) -> ChatTemplate {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("tokenizer.json"),
        byte_tokenizer(&["</s>"]).to_json().unwrap(),
    )
    .unwrap();
    std::fs::write(
        folder.path().join("tokenizer_config.json"),
        r#"{"eos_token": {"content": "</s>"}}"#,
    )
    .unwrap();
    template(Tokenizer::from_folder(folder.path()).unwrap(), text)
}

#[test]
fn any_other_template_is_rendered_and_its_answers_found_by_prefixes() {
    let chat = zephyr(ZEPHYR);
    assert_eq!(
        (chat.form(), chat.stop_ids().unwrap()),
        ("rendered", vec![256])
    );
    let messages = [
        system("S"),
        user("q <|assistant|>\nok"),
        answer(" ok "),
        user("q2"),
        answer("ok"),
    ];
    let encoded = chat.encode_chat(&messages, false).unwrap();
    assert_eq!(
        chat.render(&messages, false).unwrap(),
        "<|system|>\nS</s>\n<|user|>\nq <|assistant|>\nok</s>\n<|assistant|>\nok</s>\n<|user|>\nq2</s>\n<|assistant|>\nok</s>\n"
    );
    // The user's fake answer is not labelled.
    assert_eq!(labelled(&chat, &encoded), "ok</s>ok</s>");
}

#[test]
fn a_template_whose_answers_cannot_be_placed_is_refused() {
    let refusal = |text: &str, messages: &[ChatMessage]| {
        zephyr(text)
            .encode_chat(messages, false)
            .unwrap_err()
            .to_string()
    };
    let talk = [user("q"), answer("a")];
    assert_eq!(
        refusal(ZEPHYR, &[user("x</s>"), answer("a")]),
        "message 1 contains the special token `</s>`"
    );
    assert_eq!(
        refusal(
            "{{ messages|length }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}",
            &talk
        ),
        "`chat_template: what stands before an answer changes once the answer is there` is not supported"
    );
    assert_eq!(
        refusal(
            "{% for m in messages %}{{ m.content|upper }}{{ eos_token }}{% endfor %}",
            &talk
        ),
        "`chat_template: an answer's text is changed by the template` is not supported"
    );
    assert_eq!(
        refusal("{% for m in messages %}{{ m.content }};{% endfor %}", &talk),
        "`chat_template: an answer is not followed by a special token that ends it` is not supported"
    );
    assert_eq!(
        refusal("{{ raise_exception('no talk today') }}", &talk),
        "the chat template refuses the conversation: no talk today"
    );
}

static MISTRAL_CHAT: LazyLock<ChatTemplate> = LazyLock::new(mistral);
static CHATML_CHAT: LazyLock<ChatTemplate> =
    LazyLock::new(|| template(byte_tokenizer(&["<|im_start|>", "<|im_end|>"]), CHATML));

/// Text with what templates are made of strewn in.
fn content() -> impl Strategy<Value = String> {
    let markers = [
        "[INST]",
        " [/INST] ",
        "</s>",
        "<s>",
        "<|im_end|>",
        "\n",
        "  ",
        "<|im_start|>user\n",
    ];
    let piece = prop_oneof![
        "[a-z0-9 ]{0,8}",
        "\\PC{0,4}",
        prop::sample::select(markers.to_vec()).prop_map(String::from),
    ];
    prop::collection::vec(piece, 1..5).prop_map(|pieces| format!("x{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is said, training sees the very prompt that generation makes, then the answer's own ids and one
    /// end, and labels are those ids alone.
    #[test]
    fn an_answer_is_labelled_whole_after_the_prompt_that_generation_makes(
        rules in content(), question in content(), first in content(), more in content(), last in content()
    ) {
        let messages = [system(&rules), user(&question), answer(&first), user(&more), answer(&last)];
        for chat in [&*MISTRAL_CHAT, &*CHATML_CHAT] {
            let whole = chat.encode_chat(&messages, false).unwrap();
            let mut expected = vec![false; whole.ids.len()];
            for (at, text) in [(2, &first), (4, &last)] {
                let prompt = chat.encode_chat(&messages[..at], true).unwrap().ids;
                let mut ids = chat.tokenizer().encode(text).unwrap();
                ids.extend(chat.stop_ids().unwrap());
                prop_assert!(whole.ids.starts_with(&prompt));
                prop_assert!(whole.ids[prompt.len()..].starts_with(&ids));
                expected[prompt.len()..prompt.len() + ids.len()].fill(true);
            }
            prop_assert_eq!(&whole.labels, &expected);
        }
    }
}

#[test]
fn templates_and_models_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<ChatTemplate>();
    shared::<Tokenizer>();
    shared::<qlora::ModelFiles>();
}
