//! The metrics: what a scrape may ask for, and that its length is no matter.

use crate::support::Api;

/// Scenario: a scraper asks for one load balancer, for one that there is not, and for something else.
#[tokio::test]
async fn a_scrape_may_be_of_one_load_balancer() {
    let api = Api::start(None).await;
    for path in ["/metrics", "/metrics?load_balancer=shop", "/metrics?"] {
        let response = api.get(path).await;
        assert_eq!(response.status, 200, "{path}");
        assert!(response.body.contains("# EOF\n"), "{}", response.body);
        assert_eq!(response.field("content-length"), None, "{path}");
    }
    for wrong in ["blog", "", "%00", "shop&load_balancer=blog"] {
        let response = api.get(&format!("/metrics?load_balancer={wrong}")).await;
        assert_eq!(
            response.problem(),
            (404, "unknown_load_balancer".into()),
            "{wrong}"
        );
    }
    let response = api.get("/metrics?pool=default").await;
    assert_eq!(response.problem(), (422, "bad_query".into()));
    assert!(response.detail().contains("`load_balancer`"), "{response:?}");
}
