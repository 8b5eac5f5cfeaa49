//! Keys of one namespace, at dead letters and limits of another: by HTTP and by the command.

use crate::access::{Guarded, NOBODY, bearer, key};
use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tasker_shared::id::DeadLetterId;
use tasker_tests::process::{TASKER, command};

/// The id that nothing has.
fn nobody() -> &'static str {
    NOBODY.rsplit('/').next().unwrap_or_default()
}

/// Runs the command with a key; answers with its exit code and all it wrote.
async fn tasker(service: &Guarded, key: &str, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = command(TASKER)?;
    command.args(arguments).env("TASKER_URL", &service.base).env("TASKER_TOKEN", key);
    let ran = command.env("XDG_CONFIG_HOME", "/nonexistent").output().await?;
    Ok((ran.status.code(), format!("{}{}", String::from_utf8(ran.stdout)?, String::from_utf8(ran.stderr)?)))
}

fn list(body: &Value, of: &str) -> Result<Vec<Value>> {
    Ok(body[of].as_array().with_context(|| format!("no list in {body}"))?.clone())
}

/// The state of all letters, as the database has it.
async fn letters(service: &Guarded) -> Result<Vec<(String, Option<String>)>> {
    let sql = "select coalesce(namespace, ''), resolution from tasker.dead_letters order by 1";
    Ok(sqlx::query_as(sql).fetch_all(service.pool.pool()).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_of_other_namespaces_do_not_exist_for_a_caller() -> Result<()> {
    let service = Guarded::start(&[]).await?;
    let (admin, [mine, theirs]) = service.two_namespaces().await?;
    for task in [&mine, &theirs] {
        let parked =
            service.post(&admin, &format!("{task}/steps/a/park"), json!({"reason": "the secret of it"})).await?;
        ensure!(parked.status == 200, "{}", parked.body);
    }
    service
        .execute(&format!(
            "insert into tasker.dead_letters (id, reason, queue, message, detail, read_count)
             values ('{}', 'unreadable', 'task_requests', '{{}}', 'the secret of nobody', 1)",
            DeadLetterId::generate()
        ))
        .await?;
    let secret = key(&service.database.url, "caller", &["dlq:*", "tasks:*"], &["mine"]).await?;
    let caller = bearer(&secret)?;
    let all = list(&service.get(&admin, "/v1/dead-letters").await?.body, "dead_letters")?;
    assert_eq!(all.len(), 3, "{all:?}");
    let id = |namespace: Value| -> Result<String> {
        let letter = all.iter().find(|letter| letter["namespace"] == namespace).context("a letter")?;
        Ok(letter["dead_letter_id"].as_str().context("an id")?.to_owned())
    };
    let (own, other, homeless) = (id(json!("mine"))?, id(json!("theirs"))?, id(Value::Null)?);

    for query in ["", "?limit=100", "?open=true", "?reason=manual", "?reason=unreadable", "?namespace=theirs"] {
        let seen = list(&service.get(&caller, &format!("/v1/dead-letters{query}")).await?.body, "dead_letters")?;
        assert!(seen.iter().all(|letter| letter["dead_letter_id"] == json!(own)), "{query}: {seen:?}");
    }
    let before = letters(&service).await?;
    for hidden in [&other, &homeless] {
        let path = format!("/v1/dead-letters/{hidden}");
        let unknown = service.get(&caller, &format!("/v1/dead-letters/{}", nobody())).await?;
        let shown = service.get(&caller, &path).await?;
        assert_eq!((shown.status, unknown.status), (404, 404));
        assert_eq!(shown.body.to_string().replace(hidden.as_str(), nobody()), unknown.body.to_string());
        for deed in ["redrive", "resolve", "discard"] {
            let refused = service.post(&caller, &format!("{path}/{deed}"), json!({"reason": "mine now"})).await?;
            assert_eq!(refused.body.to_string().replace(hidden.as_str(), nobody()), unknown.body.to_string(), "{deed}");
            let (code, told) = tasker(&service, &secret, &["dlq", deed, hidden]).await?;
            assert!(code == Some(3) && !told.contains("secret") && !told.contains("theirs"), "{deed}: {code:?} {told}");
        }
        let (code, told) = tasker(&service, &secret, &["dlq", "show", hidden]).await?;
        assert!(code == Some(3) && !told.contains("secret") && !told.contains("theirs"), "{code:?} {told}");
    }
    let task = theirs.rsplit('/').next().context("an id")?;
    let (code, told) = tasker(&service, &secret, &["dlq", "park", task, "a"]).await?;
    assert!(code == Some(3) && !told.contains("theirs"), "{code:?} {told}");
    let (code, told) = tasker(&service, &secret, &["dlq", "list", "--json"]).await?;
    assert!(code == Some(0) && told.contains(&own) && !told.contains(&other) && !told.contains(&homeless), "{told}");
    assert_eq!(letters(&service).await?, before, "nothing happened to them");

    assert_eq!(service.get(&caller, &format!("/v1/dead-letters/{own}")).await?.status, 200);
    let done = service.post(&caller, &format!("/v1/dead-letters/{own}/resolve"), json!({})).await?;
    assert_eq!((done.status, &done.body["resolved_by"]), (200, &json!("operator:key:caller")));
    let lacks = service.key("looks", &["dlq:read"], &["mine"]).await?;
    let refused = service.post(&lacks, &format!("/v1/dead-letters/{own}/redrive"), json!({})).await?;
    assert_eq!((refused.status, refused.title()), (403, "`key:looks` lacks the permission `dlq:operate`"));
    service.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_other_namespaces_are_neither_seen_nor_touched() -> Result<()> {
    let service = Guarded::start(&[]).await?;
    let (admin, _) = service.two_namespaces().await?;
    for (namespace, max) in [("mine", 3), ("theirs", 4)] {
        let set = service.ask(&admin, Method::PUT, &format!("/v1/limits/{namespace}"), json!({"max": max})).await?;
        ensure!(set.status == 200, "{}", set.body);
    }
    let secret = key(&service.database.url, "caller", &["limits:*"], &["mine"]).await?;
    let caller = bearer(&secret)?;
    let stored = async || -> Result<Vec<(String, i32)>> {
        let sql = "select namespace, max from tasker.limits order by 1";
        Ok(sqlx::query_as(sql).fetch_all(service.pool.pool()).await?)
    };
    let before = stored().await?;
    assert_eq!(before.len(), 2);
    let seen = list(&service.get(&caller, "/v1/limits").await?.body, "limits")?;
    assert_eq!(seen.iter().map(|limit| limit["namespace"].clone()).collect::<Vec<_>>(), [json!("mine")]);
    for method in [Method::PUT, Method::DELETE] {
        let there = service.ask(&caller, method.clone(), "/v1/limits/theirs", json!({"max": 1})).await?;
        let nowhere = service.ask(&caller, method.clone(), "/v1/limits/nowhere", json!({"max": 1})).await?;
        assert_eq!((there.status, there.title()), (403, "`key:caller` has no permission in the namespace `theirs`"));
        let same = there.body.to_string().replace("theirs", "nowhere");
        assert_eq!(same, nowhere.body.to_string(), "{method}: whether the namespace exists is not told");
    }
    for arguments in [&["limit", "set", "theirs", "1"] as &[_], &["limit", "remove", "theirs"]] {
        let (code, told) = tasker(&service, &secret, arguments).await?;
        assert!(code == Some(1) && told.contains("has no permission in the namespace `theirs`"), "{code:?} {told}");
    }
    let (code, told) = tasker(&service, &secret, &["limit", "list"]).await?;
    assert!(code == Some(0) && told.contains("mine") && !told.contains("theirs"), "{told}");
    assert_eq!(stored().await?, before, "nothing happened to them");

    let set = service.ask(&caller, Method::PUT, "/v1/limits/mine", json!({"max": 7})).await?;
    assert_eq!((set.status, &set.body["max"]), (200, &json!(7)));
    let left = service.ask(&caller, Method::DELETE, "/v1/limits/mine", json!({})).await?;
    assert_eq!((left.status, list(&left.body, "limits")?), (200, Vec::new()), "those of others are not in the answer");
    assert_eq!(stored().await?, [("theirs".to_owned(), 4)]);
    service.finish().await
}
