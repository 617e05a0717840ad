//! Routes: which requests go where.
//!
//! What a route matches is a small tree of conditions, parsed to valid: names are in the form in which they are
//! compared, patterns are compiled, depth and number are bounded ([`MAX_MATCH_DEPTH`], [`MAX_CONDITIONS`]).

use std::cmp::Reverse;

use super::{Actions, HashKey, IpNet, Name, RateLimit, Redirect, Respond, RouteTimeouts};

/// Most routes of a load balancer.
pub const MAX_ROUTES: usize = 10_000;
/// Most conditions of one route, those within `any`, `all` and `not` included.
pub const MAX_CONDITIONS: usize = 64;
/// How deep `any`, `all` and `not` may stand within each other.
pub const MAX_MATCH_DEPTH: usize = 8;
/// Most patterns of a config: each holds its compiled form.
pub const MAX_PATTERNS: usize = 2_000;
/// Longest pattern in bytes.
pub const MAX_PATTERN_BYTES: usize = 1_024;
/// Most a compiled pattern may take, in bytes.
pub const MAX_PATTERN_SIZE: usize = 256 * 1024;
/// Most pools of a split.
pub const MAX_SPLIT: usize = 32;
/// Greatest weight of a pool in a split.
pub const MAX_SPLIT_WEIGHT: u32 = 10_000;

/// Which requests go where. Order: see [`Route::rank`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its name; default `default` or `route-N`.
    pub name: Name,
    /// Greater goes first, before any other rule of order; default 0.
    pub priority: u32,
    /// What it matches.
    pub matches: RouteMatch,
    /// Where its requests go.
    pub target: RouteTarget,
    /// How many requests it takes; all must allow one.
    pub rate_limits: Vec<RateLimit>,
    /// Timeouts that it has otherwise than its pool.
    pub timeouts: RouteTimeouts,
    /// What it does besides.
    pub actions: Actions,
}

/// Greatest priority of a route.
pub const MAX_PRIORITY: u32 = 1_000_000;

impl Route {
    /// Its place in the order in which routes are tried, least first; routes of one rank stay as written.
    ///
    /// The greater priority; then exact host, longer wildcard, any host; then exact path, longer prefix, pattern,
    /// any path; then the greater number of further conditions.
    pub fn rank(&self) -> impl Ord + use<> {
        let host = match &self.matches.host {
            Some(HostMatch::Exact(_)) => (0, Reverse(0)),
            Some(HostMatch::Under(suffix)) => (1, Reverse(suffix.len())),
            None => (2, Reverse(0)),
        };
        let path = match &self.matches.path {
            Some(PathMatch::Exact(_)) => (0, Reverse(0)),
            // Every path is under `/`.
            Some(PathMatch::Prefix(prefix)) if prefix == "/" => (3, Reverse(0)),
            Some(PathMatch::Prefix(prefix)) => (1, Reverse(prefix.len())),
            Some(PathMatch::Pattern(_)) => (2, Reverse(0)),
            None => (3, Reverse(0)),
        };
        (
            Reverse(self.priority),
            host,
            path,
            Reverse(self.matches.further_conditions()),
        )
    }
}

/// Where the requests of a route go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// To one pool.
    Pool(Name),
    /// To one of several pools, by weight.
    Split(Split),
    /// To another address.
    Redirect(Redirect),
    /// Nowhere: they are answered.
    Respond(Respond),
}

impl RouteTarget {
    /// The pools that it can lead to.
    pub fn pools(&self) -> impl Iterator<Item = &Name> {
        let (one, many) = match self {
            Self::Pool(pool) => (Some(pool), None),
            Self::Split(split) => (None, Some(split.parts.iter().map(|part| &part.pool))),
            Self::Redirect(_) | Self::Respond(_) => (None, None),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

/// Requests shared out among pools by weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// 1 to [`MAX_SPLIT`] pools, each once; one weight at least is not zero.
    pub parts: Vec<SplitPart>,
    /// What keeps a user with one pool; `None`: each request is shared out by itself.
    pub key: Option<HashKey>,
}

/// One pool of a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitPart {
    /// The pool.
    pub pool: Name,
    /// Share relative to the others: 0 to [`MAX_SPLIT_WEIGHT`].
    pub weight: u32,
}

/// What a route matches; all that is given must hold. Nothing given matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteMatch {
    /// Host name without port.
    pub host: Option<HostMatch>,
    /// Path of the target after normalisation.
    pub path: Option<PathMatch>,
    /// One of these methods, compared exactly; empty: any.
    pub methods: Vec<String>,
    /// Header fields by name in lower case, each name once. A field that comes several times matches when one
    /// of its lines does.
    pub headers: Vec<(String, ValueMatch)>,
    /// Cookies by name.
    pub cookies: Vec<(String, ValueMatch)>,
    /// Parameters of the query by name, compared after percent-decoding. One that comes several times matches
    /// when one of its values does.
    pub query: Vec<(String, ValueMatch)>,
    /// The client's address lies in one of these networks; empty: anywhere.
    pub client_address: Vec<IpNet>,
    /// The language negotiated from `Accept-Language` is one of these (lower case); empty: any.
    pub languages: Vec<String>,
    /// The client's country is one of these (ISO 3166-1, two capitals); empty: any.
    pub countries: Vec<String>,
    /// The client's continent is one of these (two capitals); empty: any.
    pub continents: Vec<String>,
    /// One of these holds; empty: says nothing.
    pub any: Vec<Self>,
    /// All of these hold.
    pub all: Vec<Self>,
    /// This does not hold.
    pub not: Option<Box<Self>>,
}

impl RouteMatch {
    /// How many conditions it has beside host and path: each value compared is one, each list of alternatives is
    /// one, and what stands within `all` counts as if it stood outside.
    pub fn further_conditions(&self) -> usize {
        let Self {
            host: _,
            path: _,
            methods,
            headers,
            cookies,
            query,
            client_address,
            languages,
            countries,
            continents,
            any,
            all,
            not,
        } = self;
        let lists = [
            methods.is_empty(),
            client_address.is_empty(),
            languages.is_empty(),
            countries.is_empty(),
            continents.is_empty(),
            any.is_empty(),
            not.is_none(),
        ];
        let given = lists.into_iter().filter(|missing| !missing).count();
        let nested = all.iter().map(|each| {
            each.further_conditions() + usize::from(each.host.is_some()) + usize::from(each.path.is_some())
        });
        given + headers.len() + cookies.len() + query.len() + nested.sum::<usize>()
    }

    /// How many conditions it has in all, and how deep they stand: 1 for one without `any`, `all` and `not`.
    pub fn size(&self) -> (usize, usize) {
        let own = [
            self.host.is_some(),
            self.path.is_some(),
            !self.methods.is_empty(),
            !self.client_address.is_empty(),
            !self.languages.is_empty(),
            !self.countries.is_empty(),
            !self.continents.is_empty(),
        ];
        let own = own.into_iter().filter(|given| *given).count();
        let own = own + self.headers.len() + self.cookies.len() + self.query.len();
        let (conditions, depth) = self
            .nested()
            .map(Self::size)
            .fold((0, 0), |(count, deepest), (conditions, depth)| {
                (count + conditions.max(1), deepest.max(depth))
            });
        (own + conditions, depth + 1)
    }

    /// What stands directly within `any`, `all` and `not`.
    pub fn nested(&self) -> impl Iterator<Item = &Self> {
        self.any.iter().chain(&self.all).chain(self.not.as_deref())
    }
}

/// How a host is compared, ignoring case and one final dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostMatch {
    /// This name, in lower case.
    Exact(String),
    /// Names with one label or more before this, which starts with a dot: `*.example.com` is `.example.com`.
    Under(String),
}

impl std::fmt::Display for HostMatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Under(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// How a path is compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathMatch {
    /// Equal to this.
    Exact(String),
    /// Starts with this, at a segment border: `/api` matches `/api` and `/api/x`, not `/apis`.
    Prefix(String),
    /// The whole path matches this.
    Pattern(Pattern),
}

/// How a value is compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ValueMatch {
    /// It is there, whatever it says.
    Present,
    /// It is not there.
    Absent,
    /// Equal to this, letter for letter.
    Exact(String),
    /// The whole value matches this.
    Pattern(Pattern),
}

/// A regular expression that a whole value must match, compiled.
///
/// The syntax is that of the `regex` crate, on bytes: no look-around and no back-references, and in return the
/// time to match grows with the length of the value only. Two are equal when their texts are.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    whole: regex::bytes::Regex,
}

/// Why a text is not a [`Pattern`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Too long to be read.
    #[error("a pattern has at most {MAX_PATTERN_BYTES} bytes")]
    TooLong,
    /// Compiled, it would take too much memory.
    #[error("the pattern takes more than {} KiB when compiled", MAX_PATTERN_SIZE / 1024)]
    TooBig,
    /// Not a regular expression; what is wrong, on one line.
    #[error("not a regular expression: {0}")]
    Syntax(String),
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// [`PatternError`] for what is no regular expression, or a too large one.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.len() > MAX_PATTERN_BYTES {
            return Err(PatternError::TooLong);
        }
        // Read by itself first: what is wrong with it is then said about its own text, and a bracket too many
        // cannot close the group around it.
        compile(text)?;
        // A comment of a verbose pattern ends with its line.
        let whole = compile(&format!("^(?:{text})$")).or_else(|_| compile(&format!("^(?:{text}\n)$")))?;
        Ok(Self {
            text: text.to_owned(),
            whole,
        })
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How many groups it has, the whole not counted.
    pub fn groups(&self) -> usize {
        self.whole.captures_len().saturating_sub(1)
    }

    /// What its groups match when the whole of `value` matches; 0 is the whole.
    pub fn captures<'v>(&self, value: &'v [u8]) -> Option<regex::bytes::Captures<'v>> {
        self.whole.captures(value)
    }

    /// Whether the whole of `value` matches.
    pub fn matches(&self, value: &[u8]) -> bool {
        self.whole.is_match(value)
    }
}

fn compile(text: &str) -> Result<regex::bytes::Regex, PatternError> {
    let compiled = regex::bytes::RegexBuilder::new(text)
        .size_limit(MAX_PATTERN_SIZE)
        .dfa_size_limit(MAX_PATTERN_SIZE)
        .build();
    compiled.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => PatternError::TooBig,
        // Several lines: the pattern, a caret, and the cause at the end.
        other => {
            let shown = other.to_string();
            let cause = shown.lines().last().unwrap_or_default();
            PatternError::Syntax(cause.trim_start_matches("error: ").to_owned())
        }
    })
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl PartialOrd for Pattern {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pattern {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pattern holds for the whole value, whatever alternatives, flags and comments it has.
    #[test]
    fn a_pattern_matches_the_whole_value() {
        for (pattern, matching, other) in [
            ("/a|/b", "/b", "/bc"),
            ("/v[0-9]+", "/v12", "x/v12"),
            ("(?i)abc", "ABC", "ABCD"),
            ("(?x) a # comment", "a", "b"),
            ("", "", "x"),
        ] {
            let compiled = Pattern::parse(pattern).unwrap();
            assert!(compiled.matches(matching.as_bytes()), "{pattern}");
            assert!(!compiled.matches(other.as_bytes()), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_is_bounded_and_its_error_is_one_line() {
        assert_eq!(Pattern::parse(&"a".repeat(1025)), Err(PatternError::TooLong));
        assert_eq!(Pattern::parse("(a{1000}){1000}"), Err(PatternError::TooBig));
        for wrong in ["(", "a)(b", "a)", "[", "(?=x)", "\\1"] {
            let Err(PatternError::Syntax(cause)) = Pattern::parse(wrong) else {
                panic!("{wrong} was taken");
            };
            assert!(!cause.is_empty() && !cause.contains('\n'), "{cause}");
        }
    }

    #[test]
    fn what_stands_in_all_counts_as_if_it_stood_outside() {
        let header = RouteMatch {
            headers: vec![("x-a".to_owned(), ValueMatch::Present)],
            ..RouteMatch::default()
        };
        let all = RouteMatch {
            all: vec![header.clone(), header.clone()],
            ..RouteMatch::default()
        };
        let any = RouteMatch {
            any: vec![header.clone(), header],
            ..RouteMatch::default()
        };
        assert_eq!((all.further_conditions(), all.size()), (2, (2, 2)));
        assert_eq!((any.further_conditions(), any.size()), (1, (2, 2)));
        assert_eq!(RouteMatch::default().size(), (0, 1));
    }
}
