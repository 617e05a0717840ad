//! What a route does besides choosing a pool, made at random.

use evenkeel_model::config::{
    Actions, BufferRequests, BufferResponses, Compression, Content, Encoding, ErrorPages, HeaderRules,
    Mirror, Name, PathMatch, PathRewrite, Pattern, Redirect, Respond, Rewrite, RouteTarget, Template,
    Variable,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::ms;

fn template(text: &str) -> Template {
    Template::parse(text, &Variable::ALL, Some(2)).unwrap()
}

/// A target that needs no pool.
pub(super) fn answer() -> impl Strategy<Value = RouteTarget> {
    let to = prop::sample::select(vec![
        "https://new.example{path}{query}",
        "http://{host}:8080/{{x}}",
        "{scheme}://{host}/'",
        "/{route}",
        "{path}#x",
    ]);
    let status = prop::sample::select(vec![301, 302, 303, 307, 308]);
    let redirect = (to, status).prop_map(|(to, status)| {
        RouteTarget::Redirect(Redirect {
            to: template(to),
            status,
        })
    });
    let file = "/[^\\pC]{0,20}".prop_map(|path| Content::of_file(&path));
    let body = prop_oneof![".{0,20}".prop_map(|text| Content::inline(&text)), file];
    let respond = (200..=203u16, "[!-~]([ -~]{0,9}[!-~])?", body).prop_map(|(status, content_type, body)| {
        RouteTarget::Respond(Respond {
            status,
            content_type: Some(content_type),
            body,
        })
    });
    let bodiless = Just(RouteTarget::Respond(Respond {
        status: 204,
        content_type: None,
        body: Content::default(),
    }));
    prop_oneof![redirect, respond, bodiless]
}

/// A redirect that names a group where its route has a pattern.
pub(super) fn with_groups(answer: RouteTarget, path: Option<&PathMatch>) -> RouteTarget {
    match (answer, path) {
        (RouteTarget::Redirect(redirect), Some(PathMatch::Pattern(_))) => RouteTarget::Redirect(Redirect {
            to: template("/new{{/{0}{query}"),
            ..redirect
        }),
        (answer, _) => answer,
    }
}

fn header_rules() -> impl Strategy<Value = HeaderRules> {
    let values = vec!["1", "a b", "{client_address}", "{{{request_id}}}", "\"{method}\\"];
    let fields = || {
        btree_map(
            "x-[a-z!#$%&'*+.^_`|~]{1,8}",
            prop::sample::select(values.clone()),
            0..3,
        )
        .prop_map(|fields| {
            fields
                .into_iter()
                .map(|(name, value)| (name, template(value)))
                .collect()
        })
    };
    (fields(), fields(), vec("x-[a-z]{1,8}", 0..3)).prop_map(|(set, add, remove)| HeaderRules {
        set,
        add,
        remove,
    })
}

fn rewrite() -> impl Strategy<Value = Rewrite> {
    let pattern = PathRewrite::Pattern {
        pattern: Pattern::parse("/(a)/(.*)").unwrap(),
        to: template("/{2}?x={1}&y={{}}"),
    };
    let path = prop_oneof![
        "/[a-z0-9/\"'\\\\%_~-]{0,10}".prop_map(PathRewrite::Prefix),
        Just(pattern)
    ];
    (
        option::of("[a-z0-9.-]{1,12}(:[1-9][0-9]{0,3})?"),
        option::of(path),
    )
        .prop_map(|(host, path)| Rewrite { host, path })
}

fn error_pages() -> impl Strategy<Value = ErrorPages> {
    let statuses = prop_oneof![
        Just((400, 499)),
        Just((500, 599)),
        (400..=599u16).prop_map(|status| (status, status))
    ];
    (btree_map(statuses, "/[^\\pC]{0,20}", 0..4), any::<bool>()).prop_map(|(pages, intercept)| {
        let mut pages: Vec<_> = pages
            .into_iter()
            .map(|(statuses, path)| (statuses, Content::of_file(&path)))
            .collect();
        pages.sort_by_key(|((first, last), _)| last - first);
        ErrorPages {
            intercept: intercept && !pages.is_empty(),
            pages,
        }
    })
}

fn compression() -> impl Strategy<Value = Compression> {
    let encodings = btree_set(
        prop::sample::select(vec![Encoding::Gzip, Encoding::Brotli, Encoding::Zstd]),
        1..4,
    );
    (
        encodings,
        vec("[a-z]{1,5}/([a-z+.-]{1,5}|\\*)", 1..3),
        0..=1u64 << 30,
        any::<bool>(),
    )
        .prop_map(|(encodings, types, minimum_size, with_credentials)| Compression {
            encodings: encodings.into_iter().collect(),
            types,
            minimum_size,
            with_credentials,
        })
}

fn mirror() -> impl Strategy<Value = Mirror> {
    (0..=100u8, 0..=16u64 << 20, 1..=100_000u32, ms(10..=3_600_000)).prop_map(
        |(share, max_body, max_in_flight, timeout)| Mirror {
            pool: Name::parse("mirror").unwrap(),
            share,
            max_body,
            max_in_flight,
            timeout,
        },
    )
}

/// What is left of them where a route answers by itself.
pub(super) fn without_pool(actions: Actions) -> Actions {
    Actions {
        response_headers: actions.response_headers,
        error_pages: actions.error_pages,
        max_body: actions.max_body,
        ..Actions::default()
    }
}

/// What a route does; a mirror's pool is whoever's.
pub(super) fn actions() -> impl Strategy<Value = Actions> {
    let buffer = (4096..=64u64 << 20, 0..=1u64 << 40, 0..=1u64 << 40, 0..=1u64 << 40);
    (
        (option::of(rewrite()), header_rules(), header_rules()),
        (error_pages(), option::of(0..=1u64 << 40)),
        (option::of(mirror()), option::of(compression())),
        (option::of(buffer), option::of(4096..=64u64 << 20)),
    )
        .prop_map(
            |(
                (rewrite, request_headers, response_headers),
                (error_pages, max_body),
                (mirror, compression),
                (requests, responses),
            )| Actions {
                rewrite,
                request_headers,
                response_headers,
                error_pages: error_pages.into(),
                max_body,
                mirror,
                compression,
                buffer_requests: requests.map(|(memory, memory_total, disk, disk_total)| BufferRequests {
                    memory,
                    memory_total,
                    disk,
                    disk_total,
                }),
                buffer_responses: responses.map(|memory| BufferResponses { memory }),
            },
        )
}
