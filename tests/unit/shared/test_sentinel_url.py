"""URLs that name sentinels are taken apart into URLs of single servers."""

from shared.sentinel_url import parse_sentinel_url


def test_user_and_options_are_the_primarys_and_sentinels_have_their_own():
    url = "redis+sentinel://farm:p%40ss@a:1,b,[::1]/my%20farm/2?health_check_interval=5&sentinel_username=watcher&sentinel_password=p%23"
    parsed = parse_sentinel_url(url)
    assert parsed.service == "my farm"
    assert parsed.redis_url == "redis://farm:p%40ss@a:1/2?health_check_interval=5"
    query = "?username=watcher&password=p%23"
    assert parsed.sentinel_urls == tuple(f"redis://{host}/{query}" for host in ("a:1", "b:26379", "[::1]:26379"))


def test_sentinels_use_tls_as_the_primary_does_unless_told_not_to():
    url = "rediss+sentinel://a/farm?ssl_ca_certs=/ca.pem"
    assert parse_sentinel_url(url).sentinel_urls == ("rediss://a:26379/?ssl_ca_certs=%2Fca.pem",)
    plain = parse_sentinel_url(f"{url}&sentinel_ssl=no")
    assert plain.sentinel_urls == ("redis://a:26379/?",)
    assert plain.redis_url == "rediss://a:26379/?ssl_ca_certs=%2Fca.pem"
