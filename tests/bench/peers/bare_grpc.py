"""A grpc.aio server without a model: what a call costs before anything is predicted.

python bare_grpc.py PORT
"""

import sys

import grpc

ANSWER = bytes.fromhex("0801120800000000000000001a0131")  # a class, two probabilities, a version


async def predict(_request, _context):
    return ANSWER


async def main(port):
    server = grpc.aio.server()
    method = {"Predict": grpc.unary_unary_rpc_method_handler(predict)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("prediction.PredictionService", method),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1])))
