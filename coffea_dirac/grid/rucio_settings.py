"""What a Rucio server on the loopback interface is told: templates of its files, and what begins its database."""

from __future__ import annotations

# What Apache's mod_ssl would tell the application: the subject of the client's certificate.
APPLICATION = """
from rucio.web.rest.main import application as rucio

import os

LOG = os.open("requests.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
SHORT = {"commonName": "CN", "domainComponent": "DC"}

def application(environment, start):
    # Before the answer: gunicorn's own log has a request some time after it.
    os.write(LOG, f"{environment['REQUEST_METHOD']} {environment['PATH_INFO']}\\n".encode())
    environment.pop("SSL_CLIENT_S_DN", None)
    subject = (environment["gunicorn.socket"].getpeercert() or {}).get("subject", ())
    if subject:
        environment["SSL_CLIENT_VERIFY"] = "SUCCESS"
        parts = (f"{SHORT.get(name, name)}={value}" for part in reversed(subject) for name, value in part)
        environment["SSL_CLIENT_S_DN"] = ",".join(parts)
    return rucio(environment, start)
"""
GUNICORN = """
import ssl
bind = "127.0.0.1:{port}"
workers, threads, worker_class = 1, 8, "gthread"
control_socket_disable, graceful_timeout = True, 1
errorlog = "{folder}/error.log"
certfile, keyfile, ca_certs, cert_reqs = "{cert}", "{key}", "{ca}", ssl.CERT_OPTIONAL
def ssl_context(config, default):
    made = default()
    made.verify_flags |= ssl.VERIFY_ALLOW_PROXY_CERTS
    return made
"""
BOOTSTRAP = """
import sys
from rucio.db.sqla.util import build_database, create_base_vo, create_root_account
build_database(); create_base_vo(); create_root_account()
from rucio.common.types import InternalAccount, InternalScope
from rucio.core import account, identity, scope
from rucio.db.sqla.constants import AccountType, IdentityType
from rucio.db.sqla.session import get_session
session = get_session()()
session.begin()
jdoe = InternalAccount("jdoe")
account.add_account(jdoe, AccountType.USER, "jdoe@test.org", session=session)
for name, kind, password in (
    ("jdoe", IdentityType.USERPASS, sys.argv[2]),
    ("CN=jdoe,DC=test,DC=org", IdentityType.X509, None),
    (f"SUB={sys.argv[3]}, ISS={sys.argv[1]}", IdentityType.OIDC, None),
):
    identity.add_identity(name, kind, "jdoe@test.org", password=password, session=session)
    identity.add_account_identity(name, kind, jdoe, "jdoe@test.org", default=True, session=session)
scope.add_scope(InternalScope("user.jdoe"), jdoe, session=session)
session.commit()
"""
ALEMBIC = """[alembic]
script_location = {migrations}
sqlalchemy.url = {database}
[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = generic
[logger_root]
level = WARN
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
level = NOTSET
formatter = generic
[formatter_generic]
format = %(message)s
"""
SERVER = """[common]
loglevel = INFO
logdir = {folder}
[database]
default = {database}
[alembic]
cfg = {folder}/alembic.ini
[bootstrap]
userpass_identity = root
userpass_pwd = {password}
userpass_email = root@test.org
x509_identity = CN=localhost,DC=test,DC=org
x509_email = root@test.org
[policy]
permission = generic
schema = generic
lfn2pfn_algorithm_default = hash
[core]
geoip_ignore_error = True
[monitor]
enable_metrics = False
[api]
endpoints_add = traces
[trace]
tracedir = {folder}
brokers = 127.0.0.1
port = 1
topic = /topic/rucio.tracer
username = x
password = x
[cache]
url = 127.0.0.1:{cache_port}
[oidc]
idpsecrets = {folder}/issuers.json
admin_issuer = test
expected_audience = rucio
expected_scope = openid profile
"""
