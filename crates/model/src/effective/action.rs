//! What a route does besides choosing a pool, written out.

use super::{Writer, inline_table, list, quoted};
use crate::config::{
    Actions, BufferRequests, BufferResponses, Compression, Content, ErrorPages, HeaderRules, Mirror,
    PathRewrite, Redirect, Respond, Rewrite, Template,
};
use crate::units::{format_duration, format_size};

pub(super) fn write_redirect(w: &mut Writer, redirect: &Redirect) {
    let Redirect { to, status } = redirect;
    let to = format!("to = {}", quoted(&to.to_string()));
    w.raw(
        "redirect",
        inline_table([to, format!("status = {status}")].into_iter()),
    );
}

pub(super) fn write_respond(w: &mut Writer, respond: &Respond) {
    let Respond {
        status,
        content_type,
        body,
    } = respond;
    let Content { file, bytes } = body;
    let content_type = content_type
        .iter()
        .map(|text| format!("content_type = {}", quoted(text)));
    let body = match file {
        Some(path) => Some(format!("body_file = {}", quoted(&path.display().to_string()))),
        // Without a type there is no body, not even an empty one.
        None if content_type.len() == 0 => None,
        None => Some(format!("body = {}", quoted(&String::from_utf8_lossy(bytes)))),
    };
    let status = std::iter::once(format!("status = {status}"));
    w.raw("respond", inline_table(status.chain(content_type).chain(body)));
}

pub(super) fn write_actions(w: &mut Writer, actions: &Actions) {
    let Actions {
        rewrite,
        request_headers,
        response_headers,
        error_pages,
        max_body,
        mirror,
        compression,
        buffer_requests,
        buffer_responses,
    } = actions;
    if let Some(rewrite) = rewrite {
        write_rewrite(w, rewrite);
    }
    write_header_rules(w, "request_headers", request_headers);
    write_header_rules(w, "response_headers", response_headers);
    write_error_pages(w, error_pages);
    if let Some(bytes) = max_body {
        w.size("max_body", *bytes);
    }
    if let Some(mirror) = mirror {
        write_mirror(w, mirror);
    }
    if let Some(compression) = compression {
        write_compression(w, compression);
    }
    if let Some(buffer) = buffer_requests {
        let BufferRequests {
            memory,
            memory_total,
            disk,
            disk_total,
        } = buffer;
        let sizes = [
            ("memory", memory),
            ("memory_total", memory_total),
            ("disk", disk),
            ("disk_total", disk_total),
        ];
        w.raw(
            "buffer_requests",
            inline_table(sizes.iter().map(|(key, size)| size_of(key, **size))),
        );
    }
    if let Some(BufferResponses { memory }) = buffer_responses {
        w.raw(
            "buffer_responses",
            inline_table(std::iter::once(size_of("memory", *memory))),
        );
    }
}

fn write_rewrite(w: &mut Writer, rewrite: &Rewrite) {
    let Rewrite { host, path } = rewrite;
    let host = host.iter().map(|host| format!("host = {}", quoted(host)));
    let path = match path {
        None => Vec::new(),
        Some(PathRewrite::Prefix(prefix)) => vec![format!("path_prefix = {}", quoted(prefix))],
        Some(PathRewrite::Pattern { pattern, to }) => vec![
            format!("path_regex = {}", quoted(pattern.as_str())),
            format!("path_to = {}", quoted(&to.to_string())),
        ],
    };
    w.raw("rewrite", inline_table(host.chain(path)));
}

fn write_header_rules(w: &mut Writer, key: &str, rules: &HeaderRules) {
    if rules.is_empty() {
        return;
    }
    let HeaderRules { set, add, remove } = rules;
    let fields = |fields: &[(String, Template)]| {
        let fields = fields
            .iter()
            .map(|(name, value)| format!("{} = {}", quoted(name), quoted(&value.to_string())));
        inline_table(fields)
    };
    let mut parts = Vec::new();
    if !set.is_empty() {
        parts.push(format!("set = {}", fields(set)));
    }
    if !add.is_empty() {
        parts.push(format!("add = {}", fields(add)));
    }
    if !remove.is_empty() {
        parts.push(format!(
            "remove = {}",
            list(remove.iter().map(|name| quoted(name)))
        ));
    }
    w.raw(key, inline_table(parts.into_iter()));
}

fn write_error_pages(w: &mut Writer, error_pages: &ErrorPages) {
    let ErrorPages { pages, intercept } = error_pages;
    if pages.is_empty() {
        return;
    }
    let pages = pages.iter().map(|(statuses, content)| {
        let status = ErrorPages::written(*statuses);
        let file = content.file.as_ref().map(|path| path.display().to_string());
        format!("{} = {}", quoted(&status), quoted(&file.unwrap_or_default()))
    });
    w.raw("error_pages", inline_table(pages));
    w.raw("intercept_errors", intercept);
}

fn write_mirror(w: &mut Writer, mirror: &Mirror) {
    let Mirror {
        pool,
        share,
        max_body,
        max_in_flight,
        timeout,
    } = mirror;
    let parts = [
        format!("pool = {}", quoted(pool.as_str())),
        format!("share = {}", quoted(&format!("{share}%"))),
        size_of("max_body", *max_body),
        format!("max_in_flight = {max_in_flight}"),
        format!("timeout = {}", quoted(&format_duration(*timeout))),
    ];
    w.raw("mirror", inline_table(parts.into_iter()));
}

fn write_compression(w: &mut Writer, compression: &Compression) {
    let Compression {
        encodings,
        types,
        minimum_size,
        with_credentials,
    } = compression;
    let parts = [
        format!(
            "encodings = {}",
            list(encodings.iter().map(|encoding| quoted(encoding.as_str())))
        ),
        format!("types = {}", list(types.iter().map(|text| quoted(text)))),
        size_of("minimum_size", *minimum_size),
        format!("with_credentials = {with_credentials}"),
    ];
    w.raw("compression", inline_table(parts.into_iter()));
}

fn size_of(key: &str, size: u64) -> String {
    format!("{key} = {}", quoted(&format_size(size)))
}
