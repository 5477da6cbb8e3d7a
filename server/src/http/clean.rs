//! Paths as Go's router wants them: who asks for another form of a path is sent to the clean one (pure).

use axum::body::Body;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, Response, StatusCode, Uri};

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Where to ask instead; `None` where the path is clean.
pub(super) fn redirect(method: &Method, uri: &Uri) -> Option<Response<Body>> {
    let asked = uri.path();
    // The old prefix is rewritten first, as in etcd.
    let path = asked.strip_prefix("/v3beta/").map_or(asked.to_owned(), |rest| format!("/v3/{rest}"));
    let mut location = clean(&path);
    if location == path {
        return None;
    }
    if let Some(query) = uri.query() {
        location = format!("{location}?{query}");
    }
    let header = HeaderValue::try_from(&location).ok()?;
    let shown = if method == Method::GET {
        format!("<a href=\"{}\">Temporary Redirect</a>.\n\n", escaped(&location))
    } else {
        String::new()
    };
    let mut response = Response::new(Body::from(shown));
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, header);
    if method == Method::GET || method == Method::HEAD {
        response.headers_mut().insert(CONTENT_TYPE, HTML);
    }
    Some(response)
}

/// Without empty elements, `.` and `..`; a slash at the end stays.
fn clean(path: &str) -> String {
    let mut elements = Vec::new();
    for element in path.split('/') {
        match element {
            "" | "." => {}
            ".." => drop(elements.pop()),
            name => elements.push(name),
        }
    }
    let mut clean = format!("/{}", elements.join("/"));
    if path.ends_with('/') && clean != "/" {
        clean.push('/');
    }
    clean
}

fn escaped(text: &str) -> String {
    let escape = |c| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&#34;".to_owned(),
        '\'' => "&#39;".to_owned(),
        other => String::from(other),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_by_go() {
        for (path, expected) in [
            ("/", "/"),
            ("//", "/"),
            ("/health", "/health"),
            ("//health", "/health"),
            ("/v3//kv/./range", "/v3/kv/range"),
            ("/a/../health", "/health"),
            ("/../../health", "/health"),
            ("/v3/kv/", "/v3/kv/"),
            ("/v3//", "/v3/"),
            ("/a/..", "/"),
            ("/..a/b.", "/..a/b."),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }

    #[test]
    fn who_asks_for_an_unclean_path_is_sent_on() {
        let of = |method: Method, uri: &str| redirect(&method, &uri.parse().unwrap());
        assert!(of(Method::POST, "/v3/kv/put").is_none());
        assert!(of(Method::POST, "/v3beta/kv/put").is_none(), "the old prefix is served");
        let response = of(Method::POST, "/v3beta//kv/put?x=1").unwrap();
        assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(response.headers()[LOCATION], "/v3/kv/put?x=1");
        assert!(!response.headers().contains_key(CONTENT_TYPE));
        assert_eq!(of(Method::GET, "//health").unwrap().headers()[CONTENT_TYPE], HTML);
    }
}
