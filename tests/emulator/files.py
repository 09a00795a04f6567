"""The operations on files."""

import re

from tests.emulator import places, rows, shapes
from tests.emulator.cloud import Cloud
from tests.emulator.lists import page
from tests.emulator.messages import Answer, Refusal, Request
from tests.emulator.records import File, identifier

PURPOSES = ("fine-tune", "assistants", "batch", "vision", "user_data", "evals")
MOST_BYTES = 512 * 1024 * 1024


def create(cloud: Cloud, request: Request) -> Answer:
    """Take in an upload; its content is judged while it is processed, as the service does it."""
    fields = form(request)
    if "file" not in fields:
        raise Refusal(400, "'file' is a required property", "invalid_payload", "file")
    purpose = fields.get("purpose", ("", b""))[1].decode()
    if purpose not in PURPOSES:
        raise Refusal(400, f"'{purpose}' is not one of {list(PURPOSES)}", "invalid_payload", "purpose")
    filename, content = fields["file"]
    if not content or len(content) > MOST_BYTES:
        raise Refusal(400, f"The file has {len(content)} bytes; 1 to {MOST_BYTES} are allowed.", "invalid_payload")
    places.demand_room(cloud.limits, list(cloud.files.values()), len(content))
    now = cloud.clock.now()
    file = File(identifier("file-"), now, filename, purpose, content, now + cloud.file_seconds)
    if purpose == "fine-tune":
        _judge(file)
    cloud.files[file.id] = file
    cloud.created_files.append(file)
    return Answer(201 if cloud.lax else 200, shapes.file(cloud, file))


def listed(cloud: Cloud, request: Request) -> Answer:
    """List the files, newest first unless asked otherwise."""
    files = sorted(cloud.files.values(), key=lambda file: file.created_at)
    if request.query.get("order", "desc") == "desc":
        files.reverse()
    wanted = request.query.get("purpose")
    items = [shapes.file(cloud, file) for file in files if wanted in (None, file.purpose)]
    return Answer(body=page(request, items, 10_000, 10_000))


def retrieve(cloud: Cloud, request: Request, id: str) -> Answer:
    """Return one file's description."""
    return Answer(body=shapes.file(cloud, find(cloud, id)))


def content(cloud: Cloud, request: Request, id: str) -> Answer:
    """Return one file's bytes."""
    return Answer(body=find(cloud, id).content)


def delete(cloud: Cloud, request: Request, id: str) -> Answer:
    """Delete a file; one that a job trains on takes the job with it (unverified of the real service)."""
    file = find(cloud, id)
    file.deleted = True
    del cloud.files[id]
    error = {"code": "fileNotFound", "message": f"File {id} was deleted.", "param": "training_file"}
    for job in cloud.jobs.values():
        if file in (job.training, job.validation):
            cloud.signal(job, "failed", error)
    return Answer(body={"id": id, "object": "file", "deleted": True})


def find(cloud: Cloud, id: str) -> File:
    """Return a file; refuse the request where there is none."""
    if id not in cloud.files:
        raise Refusal(404, f"No such File object: {id}", "fileNotFound", "id")
    return cloud.files[id]


def form(request: Request) -> dict[str, tuple[str, bytes]]:
    """Return the fields of a multipart form: filename (empty for plain fields) and bytes by name."""
    boundary = re.search(r'boundary="?([^";]+)', request.headers.get("content-type", ""))
    if boundary is None:
        raise Refusal(400, "A multipart/form-data body is required.", "invalid_payload")
    fields = {}
    for part in (b"\r\n" + request.body).split(b"\r\n--" + boundary[1].encode())[1:]:
        head, _, value = part.partition(b"\r\n\r\n")
        name = re.search(r'[ ;]name="([^"]*)"', head.decode())
        if name is not None:
            filename = re.search(r'filename="([^"]*)"', head.decode())
            fields[name[1]] = (filename[1] if filename else "", value)
    return fields


def _judge(file: File) -> None:
    try:
        file.kind, file.rows = rows.look_into(file.content)
    except rows.Unreadable as problem:
        file.problem = str(problem)
